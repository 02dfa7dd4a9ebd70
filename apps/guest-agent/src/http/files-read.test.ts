import { appendFileSync, chmodSync, mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, asUserHeader, SECRET, TESTER } from '../testing/agent-harness.js'

let harness: AgentHarness
beforeAll(async () => {
  harness = await AgentHarness.start()
})
afterAll(() => harness[Symbol.asyncDispose]())

const url = (path: string, more = '') => `/files?path=${encodeURIComponent(path)}${more}`
const plain = { 'accept-encoding': 'identity' }
const content = Buffer.from(Array.from({ length: 1_000 }, (_, i) => i % 251))

function file(name: string, data: Uint8Array | string = content): string {
  const path = join(harness.dir, name)
  writeFileSync(path, data)
  return path
}

/** The answer with its body not yet read. */
function get(path: string, headers: Record<string, string> = plain): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const options = { port: harness.agent.port, path: url(path), headers: { 'x-wrenn-secret': SECRET, ...headers } }
    request(options, resolve).once('error', reject).end()
  })
}

describe('GET /files', () => {
  it('answers with the bytes, their number and what a cache wants to know', async () => {
    const response = await harness.fetch(url(file('plain')), { headers: plain })
    expect(response.status).toBe(200)
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'application/octet-stream',
      'content-length': '1000',
      'accept-ranges': 'bytes',
      vary: 'Accept-Encoding',
    })
    expect(Buffer.from(await response.arrayBuffer()).equals(content)).toBe(true)
    const again = { ...plain, 'if-none-match': String(response.headers.get('etag')) }
    expect((await harness.fetch(url(join(harness.dir, 'plain')), { headers: again })).status).toBe(304)
  })

  it('answers HEAD without a body', async () => {
    const response = await harness.fetch(url(file('head')), { method: 'HEAD', headers: plain })
    expect([response.status, response.headers.get('content-length')]).toEqual([200, '1000'])
    expect((await response.arrayBuffer()).byteLength).toBe(0)
    const missing = await harness.fetch(url('/no/such'), { method: 'HEAD', headers: plain })
    expect(missing.status).toBe(404)
  })

  it('reads an empty file, one of /proc that claims to be empty, and odd names', async () => {
    expect(await (await harness.fetch(url(file('empty', '')))).text()).toBe('')
    expect(await (await harness.fetch(url('/proc/version'))).text()).toMatch(/^Linux/)
    for (const name of ['new\nline', 'a+b %41&c=#?', '名'.repeat(85), '😀'])
      expect(await (await harness.fetch(url(file(name, name)))).text()).toBe(name)
  })

  it('serves one range and refuses one outside the file', async () => {
    const path = file('ranged')
    for (const [range, from, to] of [
      ['bytes=0-0', 0, 1],
      ['bytes=10-19', 10, 20],
      ['bytes=990-', 990, 1_000],
      ['bytes=-5', 995, 1_000],
      ['bytes=-5000', 0, 1_000],
      ['bytes=500-99999', 500, 1_000],
    ] as const) {
      const response = await harness.fetch(url(path), { headers: { range, 'accept-encoding': 'gzip' } })
      expect([response.status, response.headers.get('content-range')]).toEqual([206, `bytes ${from}-${to - 1}/1000`])
      expect(response.headers.get('content-encoding')).toBeNull()
      expect(Buffer.from(await response.arrayBuffer()).equals(content.subarray(from, to))).toBe(true)
    }
    for (const range of ['bytes=1000-', 'bytes=2000-3000', 'bytes=-0']) {
      const response = await harness.fetch(url(path), { headers: { range } })
      expect([response.status, response.headers.get('content-range')]).toEqual([416, 'bytes */1000'])
    }
  })

  it('ignores several ranges, other units and a condition that no longer holds', async () => {
    const path = file('whole')
    for (const headers of [
      { range: 'bytes=0-1,5-6' },
      { range: 'lines=1-2' },
      { range: 'bytes=a-b' },
      { range: 'bytes=-' },
      { range: 'bytes=0-1', 'if-range': '"other"' },
    ]) {
      const response = await harness.fetch(url(path), { headers: { ...plain, ...headers } })
      expect([response.status, (await response.arrayBuffer()).byteLength]).toEqual([200, 1_000])
    }
  })

  it('compresses for who prefers it', async () => {
    const text = 'compress me '.repeat(10_000)
    const path = file('text', text)
    const encodingFor = async (accept: string) => {
      const response = await get(path, { 'accept-encoding': accept })
      const chunks: Buffer[] = []
      for await (const chunk of response) chunks.push(chunk)
      const body = Buffer.concat(chunks)
      const isGzip = response.headers['content-encoding'] === 'gzip'
      expect((isGzip ? gunzipSync(body) : body).toString()).toBe(text)
      return isGzip ? 'gzip' : 'identity'
    }
    for (const accept of ['gzip', 'gzip, deflate', 'br;q=1, gzip;q=0.8', '*', 'gzip;q=0.5, identity;q=0.5'])
      expect([accept, await encodingFor(accept)]).toEqual([accept, 'gzip'])
    for (const accept of ['identity', 'br', 'gzip;q=0', 'identity, gzip;q=0.5', ''])
      expect([accept, await encodingFor(accept)]).toEqual([accept, 'identity'])
  })

  it('refuses directories, devices and pipes, what is missing and what is closed to the user', async () => {
    const path = file('mine', 'secret')
    chmodSync(path, 0o600)
    const status = async (target: string, headers = {}) => {
      const response = await harness.fetch(url(target), { headers })
      return [response.status, JSON.parse(await response.text()).code]
    }
    expect(await status(harness.dir)).toEqual([400, 400])
    expect(await status('/dev/null')).toEqual([400, 400])
    expect(await status('/no/such')).toEqual([404, 404])
    expect(await status(`${path}/below`)).toEqual([400, 400])
    expect(await status(path, asUserHeader(TESTER.name))).toEqual([403, 403])
    expect(await status('nul\0byte')).toEqual([400, 400])
    const { execFileSync } = await import('node:child_process')
    execFileSync('mkfifo', [join(harness.dir, 'fifo')])
    expect(await status(join(harness.dir, 'fifo'))).toEqual([400, 400])
    const unknown = await harness.fetch(url(path, '&username=zork'))
    expect([unknown.status, await unknown.json()]).toEqual([401, { code: 401, message: "invalid username: 'zork'" }])
    expect((await harness.fetch(url(path), { method: 'PUT' })).status).toBe(405)
  })

  it('resolves ~, relative paths and links for the user of the query', async () => {
    writeFileSync(join(harness.home, 'note'), 'home')
    symlinkSync('note', join(harness.home, 'link'))
    for (const path of ['note', '~/note', '~/link'])
      expect(await (await harness.fetch(url(path, `&username=${TESTER.name}`))).text()).toBe('home')
    mkdirSync(join(harness.home, 'folder'))
    expect((await harness.fetch(url('folder', `&username=${TESTER.name}`))).status).toBe(400)
  })

  it('sends every byte of a large file in its place, also to a slow reader and compressed', async () => {
    const large = Buffer.alloc(9 * 1024 * 1024 + 17)
    for (let at = 0; at + 4 <= large.length; at += 4) large.writeUInt32LE(at, at)
    const path = file('large', large)
    for (const encoding of ['identity', 'gzip']) {
      const response = await get(path, { 'accept-encoding': encoding })
      const chunks: Buffer[] = []
      for await (const chunk of response) {
        chunks.push(chunk)
        await new Promise(setImmediate)
      }
      const body = Buffer.concat(chunks)
      expect((encoding === 'gzip' ? gunzipSync(body) : body).equals(large)).toBe(true)
    }
  })

  it('cuts the connection when the file shrinks below what was promised', async () => {
    const path = file('shrinking', Buffer.alloc(64 * 1024 * 1024, 1))
    const response = await get(path)
    truncateSync(path, 1_000_000)
    await expect(async () => {
      for await (const _ of response);
    }).rejects.toMatchObject({ code: 'ECONNRESET' })
  })

  it('sends only what was promised of a file that grows', async () => {
    const path = file('growing', Buffer.alloc(8 * 1024 * 1024, 1))
    const response = await get(path)
    appendFileSync(path, Buffer.alloc(1024 * 1024, 1))
    let length = 0
    for await (const chunk of response) length += chunk.length
    expect(length).toBe(8 * 1024 * 1024)
  })

  it('lets go of the file when the client leaves', async () => {
    const { readdirSync, readlinkSync } = await import('node:fs')
    const path = file('abandoned', Buffer.alloc(64 * 1024 * 1024, 1))
    const isOpen = () =>
      readdirSync('/proc/self/fd').some((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`) === path
        } catch {
          return false
        }
      })
    const response = await get(path)
    expect(isOpen()).toBe(true)
    response.destroy()
    const { eventually } = await import('../testing/eventually.js')
    await eventually('the file to be closed', () => !isOpen())
  })
})
