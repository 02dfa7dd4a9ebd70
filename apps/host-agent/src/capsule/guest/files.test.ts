import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type FileWish, GUEST_PORT, GuestClient } from './client.js'
import { patienceOf } from './pulse.js'

const ADDRESS = '127.83.0.7'
const BYTES = '0123456789'

/** What a guest's agent answers: `/endless` has no length that is known, `/plain` has one. */
function answer(request: IncomingMessage, response: ServerResponse): void {
  const isPlain = request.url?.includes('plain') ?? false
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
  if (isPlain && range !== null && Number(range[1]) >= BYTES.length) {
    response
      .writeHead(416, { 'content-range': 'bytes */10', 'content-type': 'application/json' })
      .end('{"message":"no"}')
  } else if (request.headers['if-none-match'] === '"tag"') {
    response.writeHead(304, { etag: '"tag"' }).end()
  } else if (isPlain && range !== null) {
    const [start, end] = [Number(range[1]), range[2] ? Number(range[2]) : 9]
    response.writeHead(206, { 'content-range': `bytes ${start}-${end}/10`, 'content-length': end - start + 1 })
    response.end(BYTES.slice(start, end + 1))
  } else {
    response.writeHead(200, isPlain ? { 'content-length': 10, etag: '"tag"' } : { 'accept-ranges': 'none' })
    if (request.method === 'GET') for (const digit of BYTES) response.write(digit)
    response.end()
  }
}

describe('a file of the guest', () => {
  let server: Server
  let client: GuestClient
  beforeAll(async () => {
    server = createServer(answer).listen(GUEST_PORT, ADDRESS)
    await once(server, 'listening')
    client = new GuestClient(ADDRESS, 'secret', patienceOf(20_000))
  })
  afterAll(() => {
    client.close()
    server.close()
  })

  async function read(path: string, wish: FileWish) {
    const file = await client.readFile(path, '', wish)
    let bytes = ''
    for await (const chunk of file.chunks) bytes += Buffer.from(chunk).toString()
    const { size, length, unsized, status, headers } = file
    return { size, length, unsized, status, headers, bytes }
  }

  it('comes whole, or the part that is wanted, also nothing of it', async () => {
    const whole = { size: 10, length: 10, unsized: false, status: 200, headers: { etag: '"tag"' } }
    expect(await read('/plain', { offset: 0, length: undefined })).toEqual({ ...whole, bytes: BYTES })
    expect(await read('/plain', { offset: 3, length: 2 })).toMatchObject({ size: 10, length: 2, bytes: '34' })
    expect(await read('/plain', { offset: 3, length: 0 })).toEqual({ ...whole, length: 0, bytes: '' })
    const beyond = read('/plain', { offset: 10, length: 1 })
    await expect(beyond).rejects.toMatchObject({ code: 'range_not_satisfiable' })
  })

  it('without a known length comes to its end, and parts are taken out of it', async () => {
    const said = { size: 0, length: 0, unsized: true, status: 200, headers: { 'accept-ranges': 'none' } }
    expect(await read('/endless', { offset: 0, length: undefined })).toEqual({ ...said, bytes: BYTES })
    expect((await read('/endless', { offset: 4, length: 3 })).bytes).toBe('456')
    expect((await read('/endless', { offset: 7, length: undefined })).bytes).toBe('789')
    expect((await read('/endless', { offset: 10, length: 5 })).bytes).toBe('')
  })

  it('is judged by the guest for a client of HTTP', async () => {
    const wish = (headers: Record<string, string>, statOnly = false) => read('/plain', { headers, statOnly })
    expect(await wish({ range: 'bytes=1-2' })).toMatchObject({ status: 206, size: 10, length: 2, bytes: '12' })
    expect(await wish({ range: 'bytes=10-' })).toMatchObject({
      status: 416,
      bytes: '',
      headers: { 'content-range': 'bytes */10' },
    })
    expect(await wish({ 'if-none-match': '"tag"' })).toMatchObject({ status: 304, bytes: '', unsized: false })
    expect(await wish({}, true)).toMatchObject({ status: 200, size: 10, length: 10, bytes: '' })
  })
})
