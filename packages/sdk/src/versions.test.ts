import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { capsule, FakeServer, ID, KEY, sendJson } from './fake-server.fixture.js'
import { type Capsule, Wrenn, type WrennError } from './index.js'

let server: FakeServer
let found: Capsule
let text: string
let revision: number

beforeEach(async () => {
  text = 'one'
  revision = 1
  server = await new FakeServer().start()
  server.handler = ({ method, path, headers, body }, response) => {
    if (!path.includes('/files')) return sendJson(response, capsule('running'))
    if (method === 'GET') {
      const length = path.includes('proc') ? {} : { 'content-length': text.length, etag: `"${revision}"` }
      return response.writeHead(200, length).end(text)
    }
    const wanted = headers['if-match']
    if (wanted !== undefined && wanted !== `"${revision}"`) {
      return sendJson(response, { error: { code: 'precondition_failed', message: 'Another version.' } }, 412)
    }
    text = body
    revision++
    return sendJson(response, { path: '/a', bytes: body.length })
  }
  found = await new Wrenn({ apiUrl: server.url, apiKey: KEY }).capsules.get(ID)
})
afterEach(() => server[Symbol.asyncDispose]())

describe('a version of a file', () => {
  it('comes with its bytes, and is replaced while it is there', async () => {
    const { stream, sizeBytes, version } = await found.files.open('/a ü', { user: 'root' })
    expect([await new Response(stream).text(), sizeBytes, version]).toEqual(['one', 3, '"1"'])
    expect(server.seen.at(-1)?.path).toBe(`/v1/capsules/${ID}/files?path=%2Fa+%C3%BC&user=root`)
    await found.files.write('/a', 'two', { ifVersion: version ?? '' })
    const late = found.files.write('/a', 'three', { ifVersion: version ?? '' })
    await expect(late).rejects.toMatchObject({ code: 'precondition_failed', status: 412 } satisfies Partial<WrennError>)
    expect(text).toBe('two')
  })

  it('is not there for what the kernel makes up, nor is its size', async () => {
    const { stream, ...rest } = await found.files.open('/proc/kallsyms')
    expect(rest).toEqual({ sizeBytes: undefined, version: undefined })
    await stream.cancel()
  })

  it('is not sent a second time: its own first attempt would be in the way', async () => {
    let attempts = 0
    server.handler = (_seen, response) => {
      attempts++
      sendJson(response, { error: { code: 'host_unavailable', message: 'Later.' } }, 503)
    }
    await expect(found.files.write('/a', 'two', { ifVersion: '"1"' })).rejects.toMatchObject({
      code: 'host_unavailable',
    })
    expect(attempts).toBe(1)
  })
})
