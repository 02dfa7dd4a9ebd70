import { createServer as createTcp } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Platform, startPlatform } from '../testing/harness.js'
import { bodyOf, dial, exchange, readUntil, type Service, serve } from '../testing/proxied.js'

const MAX_CONNECTIONS = 5
const WISH = 'Connection: Upgrade\r\nUpgrade: websocket\r\n'

let platform: Platform
let service: Service
let id: string
let seen: string[] = []

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_PROXY_MAX_CONNECTIONS: String(MAX_CONNECTIONS) } })
  service = await serve(async (request, response) => {
    seen.push(`${request.method} ${request.url}`)
    response.end(`got ${await bodyOf(request)}`)
  })
  id = (await platform.create({})).id
}, 60_000)
afterAll(async () => {
  await service[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})

const host = (port: number | string = service.port, capsule = id): string => `${port}-${capsule}.localhost`
const codeOf = (answer: string): string | undefined => /^wrenn-error-code: (.*)\r$/im.exec(answer)?.[1]

/** A service that says these bytes to whoever asks it anything. */
async function serveBytes(bytes: string) {
  let open = 0
  const server = createTcp((socket) => {
    open++
    socket.on('error', () => {}).once('close', () => open--)
    socket.once('data', () => socket.write(Buffer.from(bytes, 'latin1')))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return { port, open: () => open, [Symbol.dispose]: () => void server.close() }
}

// A socket's error that nobody hears, or a throw in a listener, ends the process: vitest reports it as an unhandled error.
describe('a wish for another protocol', () => {
  it('may be refused to a client that has left', async () => {
    for (let turn = 0; turn < 30; turn++) {
      const socket = dial(platform)
      await new Promise((resolve) => socket.once('connect', resolve))
      await new Promise((resolve) => socket.write(`GET / HTTP/1.1\r\nHost: ${host(49_983)}\r\n${WISH}\r\n`, resolve))
      socket.resetAndDestroy()
    }
    expect((await platform.call('GET', '/v1/capsules')).status).toBe(200)
  })

  it.each(['HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n', 'HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n'])(
    'is refused where the answer cannot be passed on: %j',
    async (bytes) => {
      using odd = await serveBytes(bytes)
      const answer = await exchange(platform, `GET / HTTP/1.1\r\nHost: ${host(odd.port)}\r\n${WISH}\r\n`)
      expect(codeOf(answer)).toBe('guest_error')
      await expect.poll(odd.open).toBe(0)
    },
  )

  it('is broken off where the answer is broken', async () => {
    using odd = await serveBytes('HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n')
    const answer = await exchange(platform, `GET / HTTP/1.1\r\nHost: ${host(odd.port)}\r\n${WISH}\r\n`)
    expect(answer).toContain('<broken off>')
    await expect.poll(odd.open).toBe(0)
  })

  it('passes the head of the answer byte for byte', async () => {
    using odd = await serveBytes('HTTP/1.1 101 \xe9\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-B: \xe9\r\n\r\n')
    const socket = dial(platform)
    socket.write(`GET / HTTP/1.1\r\nHost: ${host(odd.port)}\r\n${WISH}\r\n`)
    expect(await readUntil(socket, /\r\n\r\n/)).toMatch(/^HTTP\/1\.1 101 \xe9\r\n[\s\S]*X-B: \xe9\r\n/)
    socket.destroy()
  })

  it('is granted by a head in pieces, behind interim ones, with the first bytes at its end and no length', async () => {
    const head =
      'HTTP/1.1 101 Switching\r\nconnection: keep-alive, upgrade\r\nupgrade: websocket\r\nContent-Length: 9\r\n\r\n'
    const bytes = `HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n${head}first`
    for (const piece of [1, 7, bytes.length]) {
      const pieces = bytes.match(new RegExp(`[^]{1,${piece}}`, 'g')) ?? []
      const server = createTcp((socket) => {
        socket.on('error', () => {}).setNoDelay(true)
        const next = (): void => {
          const part = pieces.shift()
          if (part !== undefined) socket.write(part, () => setImmediate(next))
        }
        socket.once('data', next)
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      const socket = dial(platform)
      socket.write(`GET / HTTP/1.1\r\nHost: ${host(port)}\r\n${WISH}\r\n`)
      expect(await readUntil(socket, /first/)).toBe(
        'HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst',
      )
      socket.destroy()
      server.close()
    }
  })

  it.each([
    ['an answer that switches to nothing', 'HTTP/1.1 101 To nothing\r\nConnection: Upgrade\r\n\r\n'],
    ['one that does not say so', 'HTTP/1.1 101 Unsaid\r\nConnection: close, notupgrade\r\nUpgrade: websocket\r\n\r\n'],
    ['an older one', 'HTTP/1.0 101 Old\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'],
    ['folded lines', 'HTTP/1.1 101 Folded\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: a\r\n b\r\n\r\n'],
    ['bare line feeds', 'HTTP/1.1 101 Bare\nConnection: Upgrade\nUpgrade: websocket\n\n'],
    [
      'a head of more than 16 KiB',
      `HTTP/1.1 101 Long\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
    ],
  ])('is not granted by %s', async (_what, bytes) => {
    using odd = await serveBytes(bytes)
    const answer = await exchange(platform, `GET / HTTP/1.1\r\nHost: ${host(odd.port)}\r\n${WISH}\r\n`)
    expect([answer.slice(0, 12), codeOf(answer)]).toEqual(['HTTP/1.1 502', 'guest_error'])
    await expect.poll(odd.open).toBe(0)
  })

  it.each([WISH, 'Connection: Upgrade\r\nUpgrade: h2c\r\n'])('waits for the answers before it: %j', async (wish) => {
    let answer = (): void => {}
    await using slow = await serve((_request, response) => {
      answer = () => void response.end('slow')
    })
    seen = []
    const socket = dial(platform)
    socket.write(`GET / HTTP/1.1\r\nHost: ${host(slow.port)}\r\n\r\n`)
    await expect.poll(() => slow.connections).toBe(1)
    socket.write(`GET /second HTTP/1.1\r\nHost: ${host()}\r\n${wish}\r\n`)
    // By the time that another connection is served, this one's bytes have been read.
    await exchange(platform, `GET /other HTTP/1.1\r\nHost: ${host()}\r\nConnection: close\r\n\r\n`)
    expect(seen).toEqual(['GET /other'])
    answer()
    expect(await readUntil(socket, /got /)).toMatch(/^HTTP\/1\.1 200 [\s\S]*slow[\s\S]*HTTP\/1\.1 200 [\s\S]*got $/)
    socket.destroy()
  })

  it.each(['Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n', 'Host: localhost\r\n\r\n'])(
    'is none behind a request that nobody should send: %j',
    async (rest) => {
      seen = []
      const hidden = `GET /hidden HTTP/1.1\r\nHost: ${host()}\r\n${WISH}\r\n`
      const answer = await exchange(platform, `POST / HTTP/1.1\r\nHost: ${host()}\r\n${rest}${hidden}`)
      expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1)
      expect(answer).toMatch(/^HTTP\/1\.1 400 /)
      expect(seen).toEqual([])
    },
  )
})

describe('a connection on which something was refused', () => {
  it.each(['0', '080'])('ends, and nobody waits on it: port %s', async (port) => {
    const ask = (name: string) => `GET / HTTP/1.1\r\nHost: ${name}\r\n\r\n`
    const answer = await exchange(platform, `${ask(host(port))}${ask(host())}`)
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d [\s\S]*connection: close/i)
    expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1)
  })
})

describe('a request to the API', () => {
  it('with two hosts is refused, whichever comes first', async () => {
    for (const hosts of [
      ['localhost', host()],
      ['localhost', 'localhost'],
    ]) {
      const head = hosts.map((name) => `Host: ${name}\r\n`).join('')
      expect(await exchange(platform, `GET /health HTTP/1.1\r\n${head}Connection: close\r\n\r\n`)).toMatch(
        /^HTTP\/1\.1 400 /,
      )
    }
  })
})

describe('requests whose client leaves while it is looked up who may', () => {
  it('are not counted for ever', async () => {
    let begun = 0
    await using slow = await serve(() => void begun++)
    const fresh = (await platform.create()).id
    const socket = dial(platform)
    socket.write(`GET / HTTP/1.1\r\nHost: ${host(slow.port)}\r\n\r\n`)
    await expect.poll(() => begun).toBe(1)
    const waiting = `GET / HTTP/1.1\r\nHost: ${host(slow.port, fresh)}\r\n\r\n`.repeat(MAX_CONNECTIONS)
    await new Promise((resolve) => socket.write(waiting, resolve))
    socket.resetAndDestroy()
    const again = `GET / HTTP/1.1\r\nHost: ${host(service.port, fresh)}\r\nConnection: close\r\n\r\n`
    await expect.poll(async () => (await exchange(platform, again)).slice(9, 12)).toBe('200')
  })
})
