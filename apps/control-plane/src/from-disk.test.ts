import { AppError } from '@wrenn/base'
import type { Capsule, ErrorBody, ExecResult } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform

beforeAll(async () => {
  platform = await startPlatform()
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

const at = ({ id }: Capsule, path: string): string => `/v1/capsules/${id}${path}`
const post = (capsule: Capsule, path: string, body?: object, headers = {}) =>
  platform.call('POST', at(capsule, path), body, headers)
const shell = async (capsule: Capsule, script: string): Promise<string> =>
  (await json<ExecResult>(await post(capsule, '/exec', { cmd: 'sh', args: ['-c', script] }), 200)).stdout
const refusal = async (response: Response, status: number) => (await json<ErrorBody>(response, status)).error

async function paused(): Promise<Capsule> {
  const capsule = await platform.create({ envs: { SECRET: 'kept' } })
  await shell(capsule, 'printf kept > file')
  await json(await post(capsule, '/pause?wait_sec=30'), 200)
  return capsule
}

describe('a resume {"from": "disk"}', () => {
  it('is what a refused resume names, and starts the capsule with its files and environment', async () => {
    const capsule = await paused()
    platform.host.failNext('resume', new AppError('state_not_loadable', 'There is no such machine.'))
    const refused = await refusal(await post(capsule, '/resume?wait_sec=30'), 409)
    expect(refused).toMatchObject({ code: 'state_not_loadable', hint: expect.stringContaining('{"from": "disk"}') })
    const resumed = await json<Capsule>(await post(capsule, '/resume?wait_sec=30', { from: 'disk' }), 200)
    expect(resumed).toMatchObject({
      id: capsule.id,
      state: 'running',
      notice: expect.stringContaining('from its disk'),
    })
    expect(await shell(capsule, 'cat file; printf " $SECRET"')).toBe('kept kept')
  })

  it('is another request than a resume: its key is its own, and it does not join one from memory', async () => {
    const capsule = await paused()
    const key = { 'Idempotency-Key': 'once' }
    await json(await post(capsule, '/resume?wait_sec=30', { from: 'disk' }, key), 200)
    expect((await refusal(await post(capsule, '/resume', {}, key), 409)).code).toBe('idempotency_mismatch')
    await json(await post(capsule, '/pause?wait_sec=30'), 200)
    const hold = platform.host.holdNext('resume')
    const resuming = post(capsule, '/resume?wait_sec=30')
    await platform.until(capsule.id, 'resuming')
    expect((await refusal(await post(capsule, '/resume', { from: 'disk' }), 409)).code).toBe('conflict')
    hold.release()
    await json(await resuming, 200)
  })

  it('refuses what is neither memory nor disk', async () => {
    const capsule = await platform.create()
    for (const path of ['/resume', '/checkpoints/none/rollback']) {
      expect((await refusal(await post(capsule, path, { from: 'tape' }), 400)).code).toBe('invalid_request')
    }
  })

  it('ends the streams of processes, which are gone, instead of showing another of the same number', async () => {
    const capsule = await platform.create()
    const socket = platform.open(at(capsule, '/exec/stream'))
    await socket.send({ type: 'start', cmd: 'sleep', args: ['600'] })
    for (let frame = await socket.frame(); frame?.type !== 'start'; frame = await socket.frame())
      expect(frame).toBeDefined()
    await json(await post(capsule, '/pause?wait_sec=30'), 200)
    await json(await post(capsule, '/resume?wait_sec=30', { from: 'disk' }), 200)
    let last: unknown
    for (let frame = await socket.frame(); frame !== undefined; frame = await socket.frame()) last = frame
    expect(last).toMatchObject({ type: 'error', code: 'rolled_back' })
  })
})

describe('a rollback {"from": "disk"}', () => {
  it('brings back the files of the checkpoint alone', async () => {
    const capsule = await platform.create()
    await shell(capsule, 'printf then > file')
    await json(await post(capsule, '/checkpoints', { name: 'then' }), 201)
    await shell(capsule, 'printf now > file')
    const back = await post(capsule, '/checkpoints/then/rollback?wait_sec=30', { from: 'disk' })
    expect(await json<Capsule>(back, 200)).toMatchObject({ notice: expect.stringContaining('from its disk') })
    expect(await shell(capsule, 'cat file')).toBe('then')
  })
})
