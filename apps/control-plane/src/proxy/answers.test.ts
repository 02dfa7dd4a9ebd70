import { createServer, type Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Platform, startPlatform } from '../testing/harness.js'
import { dial, exchange, readUntil, serve } from '../testing/proxied.js'

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

let platform: Platform
let id: string
let close = (): void => {}

beforeAll(async () => {
  platform = await startPlatform()
  id = (await platform.create({})).id
}, 60_000)
afterAll(() => platform[Symbol.asyncDispose]())
afterEach(() => close())

/** A service of its own words: `answer` is called with each piece that comes. @returns its port, and how often it was connected to */
async function say(answer: (socket: Socket, heard: string) => void) {
  let connections = 0
  const server = createServer((socket) => {
    connections++
    socket.on('error', () => {}).on('data', (bytes) => answer(socket, bytes.toString('latin1')))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  close = () => void server.close()
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return { port, connections: () => connections }
}

const headFor = (port: number, method = 'GET'): string => `${method} / HTTP/1.1\r\nHost: ${port}-${id}.localhost\r\n`
const get = (port: number, method = 'GET'): Promise<string> =>
  exchange(platform, `${headFor(port, method)}Connection: close\r\n\r\n`)
const bodyIn = (answer: string): string => answer.slice(answer.indexOf('\r\n\r\n') + 4)

describe('an answer of a service', () => {
  it.each([
    ['of HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['that ends with its connection', 'HTTP/1.1 200 OK\r\n\r\nok'],
    ['behind an interim one', `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${OK}`],
    ['that says it is the last', 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'],
    ['in chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\no\r\n1\r\nk\r\n0\r\n\r\n'],
  ])('%s is passed on, whole and byte by byte', async (_name, bytes) => {
    const { port } = await say((socket) => socket.end(bytes, 'latin1'))
    expect(await get(port)).toMatch(
      /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\n(?:ok|1\r\no\r\n1\r\nk\r\n0\r\n\r\n|2\r\nok\r\n0\r\n\r\n)$/,
    )
    close()
    const slow = await say(async (socket) => {
      socket.setNoDelay(true)
      for (const byte of bytes) await new Promise((resolve) => socket.write(byte, 'latin1', resolve))
      socket.end()
    })
    const answer = await get(slow.port)
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(bodyIn(answer).replaceAll(/(?:^|\r\n)\d\r\n|\r\n/g, '')).toBe('ok')
  })

  it('of HTTP/1.0 is passed on to who announces trailers and has none', async () => {
    const { port } = await say((socket) => socket.end('HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok'))
    const asked = `${headFor(port)}Trailer: X-Sum\r\nConnection: close\r\n\r\n`
    expect(bodyIn(await exchange(platform, asked))).toBe('ok')
  })

  it.each([
    ['to HEAD', 'HEAD', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n', 200],
    ['without a body', 'GET', 'HTTP/1.1 304 Not Modified\r\nTrailer: X-Sum\r\n\r\n', 304],
    ['of a known length', 'GET', 'HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nok', 200],
    ['of a known length, of HTTP/1.0', 'GET', 'HTTP/1.0 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nok', 200],
  ])('that announces trailers is passed on %s, without what it announces', async (_name, method, bytes, status) => {
    const { port } = await say((socket) => socket.end(bytes))
    const answer = await get(port, method)
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(answer).not.toMatch(/trailer/i)
  })

  it('is passed on to who announces trailers of a body that has none', async () => {
    const { port } = await say((socket) => socket.write(OK))
    const asked = `${headFor(port, 'POST')}Trailer: X-Sum\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi`
    expect(bodyIn(await exchange(platform, asked))).toBe('ok')
  })

  it('leaves its connection for the next request, in chunks and without a body too', async () => {
    const chunked =
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n'
    const kinds = [OK, chunked, 'HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n', OK]
    const { port, connections } = await say((socket) => socket.write(kinds.shift() ?? ''))
    expect(bodyIn(await get(port))).toBe('ok')
    expect(bodyIn(await get(port))).toBe('2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n')
    expect(bodyIn(await get(port))).toBe('')
    expect(bodyIn(await get(port))).toBe('ok')
    expect(connections()).toBe(1)
  })

  it('to HEAD has no body, whatever its head says', async () => {
    const { port, connections } = await say((socket, heard) =>
      socket.write(heard.startsWith('HEAD') ? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n' : OK),
    )
    expect(await get(port, 'HEAD')).toMatch(/content-length: 2\r\n[\s\S]*\r\n\r\n$/i)
    expect(bodyIn(await get(port))).toBe('ok')
    expect(connections()).toBe(1)
  })

  it('that nobody asked for is given to nobody', async () => {
    const { port, connections } = await say((socket) =>
      socket.write(`${OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`),
    )
    expect(bodyIn(await get(port))).toBe('ok')
    expect(bodyIn(await get(port))).toBe('ok')
    expect(connections()).toBe(2)
  })

  it.each([
    ['chunks that are none', 'Transfer-Encoding: chunked\r\n\r\n2\r\nokZZ\r\n'],
    ['less than it says', 'Content-Length: 9\r\n\r\nok'],
  ])('with %s is broken off', async (_name, rest) => {
    const { port } = await say((socket) => socket.end(`HTTP/1.1 200 OK\r\n${rest}`))
    expect(await get(port)).toMatch(/<broken off>$/)
  })

  it.each([
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok'],
    ['a length beside chunks', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a head that has no end', `HTTP/1.1 200 OK\r\n${`X-A: ${'b'.repeat(1_000)}\r\n`.repeat(20)}`],
    ['a folded line', 'HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok'],
    ['half a head', 'HTTP/1.1 200 OK\r\nX-'],
  ])('with %s is none', async (_name, bytes) => {
    const { port } = await say((socket) => socket.end(bytes))
    expect(await get(port)).toMatch(/^HTTP\/1\.1 502 [\s\S]*wrenn-error-code: guest_error/)
  })

  it.each([
    ['all lines', 'HTTP/1.1 200 OK\nContent-Length: 2\n\nok'],
    ['the last line', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok'],
  ])('with bare line feeds at %s is none, and its end is not waited for', async (_name, bytes) => {
    const { port } = await say((socket) => socket.write(bytes))
    expect(await get(port)).toMatch(/^HTTP\/1\.1 502 [\s\S]*wrenn-error-code: guest_error/)
    close()
    const slow = await say(async (socket) => {
      for (const byte of bytes) await new Promise((resolve) => socket.write(byte, 'latin1', resolve))
    })
    expect(await get(slow.port)).toMatch(/^HTTP\/1\.1 502 /)
  })

  it('is read at the pace of the client', async () => {
    const sizeBytes = 32 * 1024 * 1024
    let left = sizeBytes
    await using big = await serve((_request, response) => {
      response.writeHead(200, { 'content-length': sizeBytes })
      const more = (): void => {
        while (left > 0) {
          left -= 65_536
          if (!response.write(Buffer.alloc(65_536, 1))) return void response.once('drain', more)
        }
        response.end()
      }
      more()
    })
    const socket = dial(platform)
    socket.write(`${headFor(big.port)}Connection: close\r\n\r\n`)
    await readUntil(socket, /\r\n\r\n/)
    socket.pause()
    // It stands still when all that lies between is full, long before the end.
    let before = -1
    const isStill = (): boolean => {
      const was = before
      before = left
      return left === was
    }
    await expect.poll(isStill, { interval: 200, timeout: 10_000 }).toBe(true)
    expect(left).toBeGreaterThan(0)
    let got = 0
    socket.on('data', (bytes) => {
      got += bytes.length
    })
    socket.resume()
    await new Promise((resolve) => socket.once('end', resolve))
    expect(got).toBeGreaterThan(sizeBytes - 1024 * 1024)
    expect(left).toBe(0)
    socket.destroy()
  })
})
