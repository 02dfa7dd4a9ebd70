import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Platform, startPlatform } from '../testing/harness.js'
import { bodyOf, dial, exchange, readAll, readUntil, type Service, serve } from '../testing/proxied.js'

const MAX_CONNECTIONS = 5

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

const host = (): string => `${service.port}-${id}.localhost`
const CHUNKED = 'Transfer-Encoding: chunked'

/** After the head's first line and its `Host`; a second request is hidden in each. */
const smuggled: Readonly<Record<string, string>> = {
  'a length beside chunks': `Content-Length: 4\r\n${CHUNKED}\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n`,
  'chunks beside a length': `${CHUNKED}\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n`,
  'two lengths': 'Content-Length: 0\r\nContent-Length: 40\r\n\r\nGET /hidden HTTP/1.1\r\n',
  'two equal lengths': 'Content-Length: 2\r\nContent-Length: 2\r\n\r\nokGET /hidden HTTP/1.1\r\n',
  'a list of lengths': 'Content-Length: 2, 2\r\n\r\nokGET /hidden HTTP/1.1\r\n',
  'a signed length': 'Content-Length: +2\r\n\r\nokGET /hidden HTTP/1.1\r\n',
  'a length in hexadecimals': 'Content-Length: 0x2\r\n\r\nokGET /hidden HTTP/1.1\r\n',
  'a coding that is none': 'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n',
  'a coding twice': `${CHUNKED}\r\n${CHUNKED}\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n`,
  'another coding after chunks': `${CHUNKED}, identity\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n`,
  'another coding below chunks': 'Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n',
  'a space before the colon': 'Transfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n',
  'a coding on a folded line': 'Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n',
  'a folded line': `X-A: b\r\n ${CHUNKED}\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n`,
  'a bare line feed': `X-A: b\n${CHUNKED}\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n`,
  'a bare carriage return': `X-A: b\r${CHUNKED}\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n`,
  'a zero byte': `X-A: b\0\r\n${CHUNKED}\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n`,
  'a name without letters': `: b\r\n${CHUNKED}\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n`,
  'a second host': `Host: localhost\r\n\r\nGET /hidden HTTP/1.1\r\n`,
}

/** Chunks after a good head; the service may begin to get the body, but is never asked twice. */
const badChunks: Readonly<Record<string, string>> = {
  'a size that is none': 'Z\r\nok\r\n0\r\n\r\n',
  'an empty size': '\r\nok\r\n0\r\n\r\n',
  'a size that overflows': '10000000000000002\r\nok\r\n0\r\n\r\n',
  'a size with a space': '2 \r\nok\r\n0\r\n\r\n',
  'a size with a sign': '+2\r\nok\r\n0\r\n\r\n',
  'a size with a prefix': '0x2\r\nok\r\n0\r\n\r\n',
  'a bare line feed': '2\nok\n0\n\n',
  'a bare line feed in an extension': '2;a\nok\r\n0\r\n\r\n',
  'data longer than its size': '2\r\nokXX0\r\n\r\n',
  'framing in the trailers': '0\r\nContent-Length: 30\r\n\r\n',
}

describe('a request whose end not everybody sees at the same place', () => {
  it.each(Object.entries(smuggled))('is refused: %s', async (_name, rest) => {
    seen = []
    const hidden = `${rest}Host: ${host()}\r\n\r\n`
    const answer = await exchange(platform, `POST /outer HTTP/1.1\r\nHost: ${host()}\r\n${hidden}`)
    expect(answer).toMatch(/^HTTP\/1\.1 400 /)
    expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1)
    expect(seen).toEqual([])
  })

  it.each(Object.entries(badChunks))('is broken off: %s', async (_name, chunks) => {
    seen = []
    const hidden = `GET /hidden HTTP/1.1\r\nHost: ${host()}\r\n\r\n`
    const answer = await exchange(
      platform,
      `POST /outer HTTP/1.1\r\nHost: ${host()}\r\n${CHUNKED}\r\n\r\n${chunks}${hidden}`,
    )
    expect(answer).not.toContain('got ')
    expect(seen).not.toContain('GET /hidden')
  })

  it('is refused with chunks in HTTP/1.0', async () => {
    seen = []
    expect(await exchange(platform, `POST / HTTP/1.0\r\nHost: ${host()}\r\n${CHUNKED}\r\n\r\n0\r\n\r\n`)).toMatch(
      / 400 /,
    )
    expect(seen).toEqual([])
  })

  it('is no part of a protocol that was not agreed to', async () => {
    seen = []
    const refused = `GET / HTTP/1.1\r\nHost: ${host()}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`
    const answer = await exchange(platform, `${refused}GET /hidden HTTP/1.1\r\nHost: ${host()}\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 200 [\s\S]*connection: close/i)
    expect(seen).toEqual(['GET /'])
  })
})

describe('a head', () => {
  it('is refused when it is larger than 16 KiB, and passed on whole up to there', async () => {
    const many = Array.from({ length: 1500 }, (_, index) => `a${index}: 1`).join('\r\n')
    expect(
      await exchange(platform, `GET / HTTP/1.1\r\nHost: ${host()}\r\nConnection: close\r\n${many}\r\n\r\n`),
    ).toMatch(/ 200 /)
    expect(await exchange(platform, `GET / HTTP/1.1\r\nHost: ${host()}\r\nX: ${'x'.repeat(17_000)}\r\n\r\n`)).toMatch(
      / 431 /,
    )
    const endless = dial(platform)
    const flood = setInterval(() => endless.write(`X: ${'x'.repeat(1000)}\r\n`), 1)
    endless.write(`GET / HTTP/1.1\r\nHost: ${host()}\r\n`)
    // What it still sends after the answer may reset the connection before the answer is read.
    expect(await readAll(endless)).toMatch(/ 431 |^<broken off>$/)
    clearInterval(flood)
    endless.destroy()
  })

  it('that never ends is not waited for', { timeout: 60_000 }, async () => {
    const [silent, slow] = [dial(platform), dial(platform)]
    const drip = setInterval(() => slow.write('x'), 500)
    slow.write(`GET / HTTP/1.1\r\nHost: ${host()}\r\nX: `)
    const [nothing, answer] = await Promise.all([readAll(silent), readAll(slow)])
    clearInterval(drip)
    expect(nothing).toMatch(/^(?:$|HTTP\/1\.1 408 )/)
    expect(answer).toMatch(/^HTTP\/1\.1 408 /)
    for (const socket of [silent, slow]) socket.destroy()
  })
})

describe('what is the host’s alone of the agent of a guest', () => {
  const names = ['49983', '049983', '0049983', '49983.', '+49983', '%34%39983', '115519', '49983-1'].map(
    (port) => `${port}-`,
  )

  it('has no URL, in no spelling', async () => {
    for (const prefix of names) {
      for (const domain of ['localhost', 'LOCALHOST', 'localhost.', 'localhost:49983']) {
        const answer = await exchange(
          platform,
          `GET /init HTTP/1.1\r\nHost: ${prefix}${id}.${domain}\r\nConnection: close\r\n\r\n`,
        )
        expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /)
      }
    }
    for (const port of [
      '49983',
      '049983',
      ' 49983',
      '49983, 80',
      '0xC33F',
      '4.9983e4',
      '-15553',
      '115519',
      '49983.0',
    ]) {
      const head = `Host: localhost\r\nE2b-Sandbox-Id: ${id}\r\nE2b-Sandbox-Port: ${port}\r\nConnection: close\r\n\r\n`
      expect(await exchange(platform, `GET /init HTTP/1.1\r\n${head}`)).toMatch(/^HTTP\/1\.1 4\d\d /)
      const upgrade = head.replace('close', 'Upgrade\r\nUpgrade: websocket')
      expect(await exchange(platform, `GET /init HTTP/1.1\r\n${upgrade}`)).toMatch(/^HTTP\/1\.1 4\d\d /)
    }
    const absolute = `GET http://49983-${id}.localhost/init HTTP/1.1\r\nHost: ${host()}\r\nConnection: close\r\n\r\n`
    expect(await exchange(platform, absolute)).toMatch(/^HTTP\/1\.1 400 /)
    expect(await exchange(platform, `CONNECT 49983-${id}.localhost:80 HTTP/1.1\r\nHost: ${host()}\r\n\r\n`)).toBe('')
    expect(platform.host.tunnels).toBeLessThan(100)
  })

  it('and a target in absolute form is fine when it names the host of the request', async () => {
    seen = []
    await exchange(platform, `GET http://${host()}/x?y HTTP/1.1\r\nHost: ${host()}\r\nConnection: close\r\n\r\n`)
    expect(seen).toEqual(['GET /x?y'])
  })
})

describe('many connections of one capsule', () => {
  it('are refused beyond the limit, without harm to another capsule', async () => {
    await using slow = await serve((_request, response) => void response.write('open'))
    const other = (await platform.create({})).id
    const ask = (port: number, capsule: string) => `GET / HTTP/1.1\r\nHost: ${port}-${capsule}.localhost\r\n\r\n`
    const open = Array.from({ length: MAX_CONNECTIONS }, () => dial(platform))
    await Promise.all(
      open.map(async (socket) => {
        socket.write(ask(slow.port, id))
        await readUntil(socket, /open/)
      }),
    )
    const refused = dial(platform)
    refused.write(ask(service.port, id))
    expect(await readUntil(refused, /requestId/)).toMatch(
      /^HTTP\/1\.1 429 [\s\S]*retry-after: 1[\s\S]*WRENN_PROXY_MAX_CONNECTIONS/i,
    )
    refused.write(ask(service.port, other))
    await readUntil(refused, /got /)
    for (const socket of open) socket.destroy()
    await expect
      .poll(async () =>
        (await exchange(platform, ask(service.port, id).replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))).slice(
          9,
          12,
        ),
      )
      .toBe('200')
    refused.destroy()
  })
})

describe('a connection that ends', () => {
  it('ends all that was asked on it, also what waits behind another answer', async () => {
    let [begun, ended] = [0, 0]
    await using slow = await serve((_request, response) => {
      begun++
      response.once('close', () => ended++)
    })
    const socket = dial(platform)
    socket.write(`GET / HTTP/1.1\r\nHost: ${slow.port}-${id}.localhost\r\n\r\n`.repeat(MAX_CONNECTIONS))
    await expect.poll(() => begun).toBe(MAX_CONNECTIONS)
    socket.destroy()
    await expect.poll(() => ended).toBe(MAX_CONNECTIONS)
    const again = `GET / HTTP/1.1\r\nHost: ${host()}\r\nConnection: close\r\n\r\n`
    await expect.poll(async () => (await exchange(platform, again)).slice(9, 12)).toBe('200')
  })
})

describe('a connection on which something was refused', () => {
  it('serves the next request, whatever the refusal was', { timeout: 60_000 }, async () => {
    const socket = dial(platform)
    const ask = async (name: string, answer: RegExp): Promise<void> => {
      socket.write(`GET / HTTP/1.1\r\nHost: ${name}\r\n\r\n`)
      await readUntil(socket, answer)
    }
    const closed = await serve(() => {})
    await closed[Symbol.asyncDispose]()
    for (const [name, code] of [
      ['80-none.localhost', 'capsule_not_found'],
      [`80-cl-${'0'.repeat(25)}.localhost`, 'capsule_not_found'],
      [`80-${id}.elsewhere.example`, 'not_found'],
      [`${closed.port}-${id}.localhost`, 'port_closed'],
    ] as const) {
      await ask(name, new RegExp(`wrenn-error-code: ${code}[\\s\\S]*requestId`))
      await ask(host(), /got /)
    }
    socket.destroy()
  })
})

describe('the listener', () => {
  it('still serves the API', async () => {
    expect((await platform.call('GET', '/v1/capsules')).status).toBe(200)
    const { port } = new URL(platform.url)
    const socket = connect({ port: Number(port), host: '127.0.0.1' })
    socket.write('POST /v1/capsules HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')
    expect(await readUntil(socket, / 401 /)).toContain('100 Continue')
    socket.destroy()
  })
})
