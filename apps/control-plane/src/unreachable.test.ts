import type { Capsule } from '@wrenn/protocol'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform
let capsule: Capsule
const at = (path: string): string => `/v1/capsules/${capsule.id}${path}`

beforeAll(async () => {
  platform = await startPlatform()
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})
beforeEach(async () => {
  capsule = await platform.create()
  platform.host.unreachable.add(capsule.id)
})

const command = { cmd: 'sleep', args: ['1000'] }
const refused = { code: 'guest_unreachable', hint: expect.stringContaining('rollback') }

async function refusalOf(response: Response): Promise<unknown> {
  return (await json<{ error: unknown }>(response, 504)).error
}

function multipart(): { readonly body: string; readonly headers: Record<string, string> } {
  const part = 'content-disposition: form-data; name="file"; filename="a"\r\n\r\nbytes\r\n'
  const path = 'content-disposition: form-data; name="path"\r\n\r\n/tmp/a\r\n'
  return {
    body: `--b\r\n${path}--b\r\n${part}--b--\r\n`,
    headers: { 'x-api-key': platform.key, 'content-type': 'multipart/form-data; boundary=b' },
  }
}

describe('a capsule whose guest cannot be reached', () => {
  it.each([
    ['POST', '/exec', { ...command, timeout_sec: 10 }],
    ['POST', '/exec', command],
    ['POST', '/exec', { ...command, background: true }],
    ['POST', '/exec', { ...command, atomic: true }],
    ['GET', '/processes', undefined],
    ['DELETE', '/processes/1', undefined],
    ['GET', '/metrics', undefined],
    ['GET', '/files?path=/a', undefined],
    ['POST', '/files/read', { path: '/a' }],
    ['POST', '/files/stream/read', { path: '/a' }],
    ['POST', '/files/list', { path: '/' }],
    ['POST', '/files/stat', { path: '/a' }],
    ['POST', '/files/mkdir', { path: '/a' }],
    ['POST', '/files/move', { source: '/a', destination: '/b' }],
    ['POST', '/files/remove', { path: '/a' }],
  ])('refuses %s %s with its code and what helps', async (method, path, body) => {
    expect(await refusalOf(await platform.call(method, at(path), body))).toMatchObject(refused)
  })

  it('refuses uploads of every form', async () => {
    const bytes = { method: 'PUT', body: 'bytes', headers: { 'x-api-key': platform.key } }
    expect(await refusalOf(await fetch(`${platform.url}${at('/files')}?path=/a`, bytes))).toMatchObject(refused)
    for (const path of ['/files/write', '/files/stream/write']) {
      const answer = await fetch(platform.url + at(path), { method: 'POST', ...multipart() })
      expect(await refusalOf(answer)).toMatchObject(refused)
    }
  })

  it.each([
    ['/exec/stream', { type: 'start', ...command }],
    ['/pty', { type: 'start', cmd: '/bin/sh', cols: 80, rows: 24 }],
    ['/pty', { type: 'connect', tag: 'some', from_offset: 0 }],
    ['/processes/1/stream?from_offset=0', undefined],
  ])('tells it on %s, which then closes', async (path, first) => {
    const socket = platform.open(at(path))
    if (first !== undefined) await socket.send(first)
    expect((await socket.until('error')).at(-1)).toMatchObject({ ...refused, fatal: true })
    expect(await socket.frame()).toBeUndefined()
  })

  it('tells an open stream that its input came to nothing, and lets it go on afterwards', async () => {
    platform.host.unreachable.delete(capsule.id)
    const socket = platform.open(at('/exec/stream'))
    await socket.send({ type: 'start', cmd: 'cat', stdin: true })
    await socket.until('start')
    platform.host.unreachable.add(capsule.id)
    const data = Buffer.from('line\n').toString('base64')
    await socket.send({ type: 'stdin', data })
    expect((await socket.until('error')).at(-1)).toMatchObject({ ...refused, fatal: false })
    platform.host.unreachable.delete(capsule.id)
    await socket.send({ type: 'stdin', data })
    await socket.send({ type: 'stdin_close' })
    const frames = await socket.until('exit')
    expect(frames.filter(({ type }) => type === 'stdout')).toMatchObject([{ data: 'line\n' }])
  })

  it('is paused, resumed, kept, rolled back and destroyed all the same', async () => {
    const states = async (method: string, path: string, body?: object): Promise<unknown> =>
      (await platform.call(method, at(path), body)).status
    expect(await states('POST', '/checkpoints', { name: 'point' })).toBe(201)
    expect(await states('POST', '/pause')).toBe(200)
    expect(await states('POST', '/resume')).toBe(200)
    expect(await states('POST', '/checkpoints/point/rollback')).toBe(200)
    expect(await states('DELETE', '')).toBe(204)
  })

  it('has an atomic command undone', async () => {
    const body = await refusalOf(await platform.call('POST', at('/exec'), { ...command, atomic: true }))
    expect(body).toMatchObject({ ...refused, details: { rolled_back: true } })
  })
})
