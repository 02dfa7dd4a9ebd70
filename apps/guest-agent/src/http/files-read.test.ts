import { execFileSync } from 'node:child_process'
import { appendFileSync, chmodSync, mkdirSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, asUserHeader, SECRET, TESTER } from '../testing/agent-harness.js'
import { eventually } from '../testing/eventually.js'

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

async function body(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk)
  return Buffer.concat(chunks)
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
  })

  it('answers HEAD without a body', async () => {
    const response = await harness.fetch(url(file('head')), { method: 'HEAD', headers: plain })
    expect([response.status, response.headers.get('content-length')]).toEqual([200, '1000'])
    expect((await response.arrayBuffer()).byteLength).toBe(0)
    const missing = await harness.fetch(url('/no/such'), { method: 'HEAD', headers: plain })
    expect(missing.status).toBe(404)
  })

  it('reads an empty file and odd names', async () => {
    expect(await (await harness.fetch(url(file('empty', '')))).text()).toBe('')
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

  it('ignores several ranges, other units and a range of a HEAD', async () => {
    const path = file('whole')
    for (const headers of [
      { range: 'bytes=0-1,5-6' },
      { range: 'lines=1-2' },
      { range: 'bytes=a-b' },
      { range: 'bytes=-' },
    ]) {
      const response = await harness.fetch(url(path), { headers: { ...plain, ...headers } })
      expect([response.status, (await response.arrayBuffer()).byteLength]).toEqual([200, 1_000])
    }
    const head = await harness.fetch(url(path), { method: 'HEAD', headers: { ...plain, range: 'bytes=0-1' } })
    expect([head.status, head.headers.get('content-length')]).toEqual([200, '1000'])
  })

  it('compresses for who prefers it', async () => {
    const text = 'compress me '.repeat(10_000)
    const path = file('text', text)
    const encodingFor = async (accept: string) => {
      const response = await get(path, { 'accept-encoding': accept })
      const bytes = await body(response)
      const isGzip = response.headers['content-encoding'] === 'gzip'
      expect((isGzip ? gunzipSync(bytes) : bytes).toString()).toBe(text)
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
    execFileSync('mkfifo', [join(harness.dir, 'fifo')])
    expect(await status(join(harness.dir, 'fifo'))).toEqual([400, 400])
    const unknown = await harness.fetch(url(path, '&username=zork'))
    expect([unknown.status, await unknown.json()]).toEqual([401, { code: 401, message: "invalid username: 'zork'" }])
    expect((await harness.fetch(url(path), { method: 'PATCH' })).status).toBe(405)
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
    await eventually('the file to be closed', () => !isOpen())
  })
})

/** What a file's answer says of its length. */
async function lengths(path: string, headers: Record<string, string> = plain, method = 'GET') {
  const response = await harness.fetch(url(path), { method, headers })
  const said = Object.fromEntries(response.headers)
  const { 'content-length': length, 'content-range': range, etag, 'last-modified': modified } = said
  return { status: response.status, text: await response.text(), length, range, etag, modified }
}

describe('a file whose size lies', () => {
  const small = [
    '/proc/version',
    '/proc/sys/kernel/random/boot_id',
    '/sys/class/net/lo/mtu',
    '/proc/sys/kernel/pid_max',
  ]

  it.each(small)('%s is what cat gives, with a length that is true and no validators', async (path) => {
    const text = execFileSync('cat', [path], { encoding: 'utf8' })
    const told = { status: 200, length: String(text.length), range: undefined, etag: undefined, modified: undefined }
    expect(await lengths(path)).toEqual({ ...told, text })
    expect(await lengths(path, plain, 'HEAD')).toEqual({ ...told, text: '' })
    const packed = await get(path, { 'accept-encoding': 'gzip' })
    expect(gunzipSync(await body(packed)).toString()).toBe(text)
    expect(packed.headers['content-length']).toBeUndefined()
  })

  it.each(small)('%s has ranges, of what was read', async (path) => {
    const text = execFileSync('cat', [path], { encoding: 'utf8' })
    const { length } = text
    expect(await lengths(path, { range: 'bytes=1-3' })).toMatchObject({
      status: 206,
      text: text.slice(1, 4),
      range: `bytes 1-3/${length}`,
    })
    expect(await lengths(path, { range: 'bytes=-2' })).toMatchObject({ status: 206, text: text.slice(-2) })
    expect(await lengths(path, { range: `bytes=${length}-` })).toMatchObject({
      status: 416,
      range: `bytes */${length}`,
    })
    const since = { range: 'bytes=0-1', 'if-range': new Date(0).toUTCString() }
    expect(await lengths(path, since)).toMatchObject({ status: 200, text })
  })

  it('is read to its end when that is far away, whole, whatever range is asked for', async () => {
    const path = '/proc/kallsyms'
    const text = execFileSync('cat', [path], { encoding: 'utf8', maxBuffer: 2 ** 30 })
    for (const headers of [plain, { ...plain, range: 'bytes=10-20' }]) {
      const answer = await lengths(path, headers)
      expect([answer.status, answer.length, answer.text.length]).toEqual([200, undefined, text.length])
    }
    expect((await harness.fetch(url(path), { method: 'HEAD' })).headers.get('accept-ranges')).toBe('none')
    expect(gunzipSync(await body(await get(path, { 'accept-encoding': 'gzip' }))).length).toBe(text.length)
  })

  it('may be a real one that is empty, sparse, or a byte more than what is read at first', async () => {
    truncateSync(file('sparse', ''), 300_000)
    for (const [name, size] of [
      ['sparse', 300_000],
      ['edge', 256 * 1024],
      ['over', 256 * 1024 + 1],
      ['none', 0],
    ] as const) {
      const path = name === 'sparse' ? join(harness.dir, name) : file(name, Buffer.alloc(size, 'e'))
      const answer = await lengths(path)
      expect([answer.length, answer.text.length]).toEqual([String(size), size])
      expect((await lengths(path, plain, 'HEAD')).length).toBe(String(size))
    }
  })

  it('is a wrong request where the kernel lets nobody read it', async () => {
    expect(await lengths('/proc/self/mem')).toMatchObject({ status: 400, text: expect.stringContaining('EIO') })
  })
})

describe('conditions', () => {
  const old = new Date('2020-02-02T02:02:02Z')
  const modified = old.toUTCString()
  /** A file of long ago, and its tag: there is one when the clock has moved on from its last change. */
  async function versioned(name: string, data = content): Promise<{ path: string; etag: string }> {
    const path = file(name, data)
    utimesSync(path, old, old)
    await eventually('the file to have a tag', async () => (await lengths(path)).etag !== undefined)
    return { path, etag: String((await lengths(path)).etag) }
  }

  it('let a part be sent only of the version that If-Range names', async () => {
    const { path, etag } = await versioned('if-range')
    const status = async (condition: string) => {
      const { status, text } = await lengths(path, { range: 'bytes=0-1', 'if-range': condition })
      return [status, text.length]
    }
    for (const current of [etag, modified, 'Sunday, 02-Feb-20 02:02:02 GMT', 'Sun Feb  2 02:02:02 2020'])
      expect([current, await status(current)]).toEqual([current, [206, 2]])
    const later = new Date(old.getTime() + 1_000).toUTCString()
    const earlier = new Date(old.getTime() - 1_000).toUTCString()
    for (const other of [`W/${etag}`, '"other"', later, earlier, 'nonsense', etag.slice(1, -1), '*'])
      expect([other, (await status(other))[0]]).toEqual([other, 200])
    writeFileSync(path, Buffer.alloc(1_000, 'n'))
    utimesSync(path, old, old)
    expect((await status(etag))[0]).toBe(200)
  })

  it('trust no date of the second that is still going on, and no tag before the clock has moved on', async () => {
    const path = file('fresh')
    const now = new Date().toUTCString()
    expect((await lengths(path, { range: 'bytes=0-1', 'if-range': now })).status).toBe(200)
    const { etag } = await versioned('retagged')
    writeFileSync(join(harness.dir, 'retagged'), 'x')
    expect((await lengths(join(harness.dir, 'retagged'))).etag).not.toBe(etag)
  })

  it('spare what the client has: If-None-Match, and If-Modified-Since where that is absent', async () => {
    const { path, etag } = await versioned('not-modified')
    const status = async (headers: Record<string, string>, method = 'GET') =>
      (await lengths(path, { ...plain, ...headers }, method)).status
    for (const tags of [etag, `W/${etag}`, `"a", ${etag}`, `"a,b",W/${etag} , "c"`, '*'])
      for (const method of ['GET', 'HEAD'])
        expect([tags, await status({ 'if-none-match': tags }, method)]).toEqual([tags, 304])
    for (const tags of ['"a"', etag.slice(0, -2), 'nonsense', ''])
      expect([tags, await status({ 'if-none-match': tags })]).toEqual([tags, 200])
    expect(await status({ 'if-modified-since': modified })).toBe(304)
    expect(await status({ 'if-modified-since': new Date(old.getTime() - 1_000).toUTCString() })).toBe(200)
    expect(await status({ 'if-modified-since': 'yesterday' })).toBe(200)
    expect(await status({ 'if-none-match': '"a"', 'if-modified-since': modified })).toBe(200)
    expect(await status({ 'if-none-match': etag, range: 'bytes=0-1' })).toBe(304)
  })

  it('refuse what is about another version: If-Match, and If-Unmodified-Since where that is absent', async () => {
    const { path, etag } = await versioned('unmodified')
    const status = async (headers: Record<string, string>) => (await lengths(path, { ...plain, ...headers })).status
    for (const tags of [etag, `"a", ${etag}`, '*'])
      expect([tags, await status({ 'if-match': tags })]).toEqual([tags, 200])
    for (const tags of ['"a"', `W/${etag}`]) expect([tags, await status({ 'if-match': tags })]).toEqual([tags, 412])
    expect(await status({ 'if-unmodified-since': modified })).toBe(200)
    expect(await status({ 'if-unmodified-since': new Date(0).toUTCString() })).toBe(412)
    expect(await status({ 'if-match': etag, 'if-unmodified-since': new Date(0).toUTCString() })).toBe(200)
  })
})
