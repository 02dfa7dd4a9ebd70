import { request as ask } from 'node:http'
import { createServer as createTcp } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import WebSocket, { WebSocketServer } from 'ws'
import { type Platform, startPlatform } from '../testing/harness.js'
import { bodyOf, dial, exchange, readAll, readUntil, type Service, serve } from '../testing/proxied.js'

let platform: Platform
let id: string
let service: Service
/** What the service got last. */
let got: { url: string; method: string; headers: string[]; body: string; trailers: string[] }

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_PROXY_DOMAIN: 'localhost, sbx.example:443' } })
}, 60_000)
afterAll(() => platform[Symbol.asyncDispose]())
beforeEach(async () => {
  id = (await platform.create({})).id
  service = await serve(async (request, response) => {
    const body = await bodyOf(request)
    const { url = '', method = '', rawHeaders: headers, rawTrailers: trailers } = request
    got = { url, method, headers, body, trailers }
    response.end(`hello from ${url}`)
  })
})
afterEach(async () => {
  await service[Symbol.asyncDispose]()
  await platform.call('DELETE', `/v1/capsules/${id}`)
})

const hostName = (port: number | string = service.port): string => `${port}-${id}.localhost`
const get = (path = '/', more = '', host = hostName()): Promise<string> =>
  exchange(platform, `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${more}\r\n`)
const received = (name: string): string | undefined => {
  const at = got.headers.findIndex((value, index) => index % 2 === 0 && value.toLowerCase() === name.toLowerCase())
  return at < 0 ? undefined : got.headers[at + 1]
}
const codeOf = (answer: string): string | undefined => /^wrenn-error-code: (.*)$/im.exec(answer)?.[1]

describe('a port of a capsule', () => {
  it('has a host name on every domain of the platform, and reachable by the routing headers', async () => {
    for (const host of [
      hostName(),
      `${hostName()}:1234`,
      hostName().toUpperCase(),
      `${hostName()}.`,
      `${service.port}-${id}.sbx.example`,
    ])
      expect(await get('/a%2fb?c=%20', '', host)).toMatch(/^HTTP\/1\.1 200 OK\r\n[\s\S]*hello from \/a%2fb\?c=%20$/)
    const headers = `E2b-Sandbox-Id: ${id}\r\nE2b-Sandbox-Port: ${service.port}\r\n`
    for (const host of ['localhost', '127.0.0.1:8000', '[::1]:8000', 'sandbox.sbx.example']) {
      expect(await get('/health', headers, host)).toContain('hello from /health')
      expect(received('e2b-sandbox-id')).toBeUndefined()
    }
    expect(await get('/health', headers, 'api.example')).toMatch(/^HTTP\/1\.1 \d+ (?!.*hello)/)
  })

  it('gets the method, the body and the headers that are for it, and no key of the platform', async () => {
    const body = 'x=1'
    await exchange(
      platform,
      [
        'PATCH /p HTTP/1.1',
        `Host: ${hostName()}`,
        'Connection: close, X-Hop',
        'X-Hop: 1',
        'Keep-Alive: timeout=5',
        'Proxy-Authorization: Basic x',
        'X-Twice: 1',
        'X-Twice: 2',
        `X-API-Key: ${platform.key}`,
        `Authorization: Bearer ${platform.key}`,
        'Cookie: a=b',
        `Content-Length: ${body.length}`,
        '',
        body,
      ].join('\r\n'),
    )
    expect(got).toMatchObject({ method: 'PATCH', url: '/p', body })
    expect(got.headers.filter((value) => /^x-twice$/i.test(value))).toHaveLength(2)
    expect(received('cookie')).toBe('a=b')
    expect(received('host')).toBe(hostName())
    expect(got.headers.join()).not.toMatch(/x-hop|keep-alive: timeout|proxy-auth|wrn_/i)
    await get('/', 'X-API-Key: of-the-service\r\nAuthorization: Bearer of-the-service\r\n')
    expect(received('x-api-key')).toBe('of-the-service')
    expect(received('authorization')).toBe('Bearer of-the-service')
  })

  it('learns from us alone where a request comes from', async () => {
    const lies = [
      'X-Forwarded-For: 1.2.3.4',
      'X_Forwarded_For: 1.2.3.4',
      'Forwarded: for=1.2.3.4',
      'X-Forwarded-Proto: https',
      'X-Real-IP: 1.2.3.4',
      'X-Forwarded-Host: evil.example',
    ]
    await get('/', `${lies.join('\r\n')}\r\n`, `${hostName()}:8000`)
    expect(got.headers.join(' ')).not.toMatch(/1\.2\.3\.4|evil/)
    expect(received('x-forwarded-for')).toBe('127.0.0.1')
    expect(received('x-forwarded-host')).toBe(`${hostName()}:8000`)
    expect(received('x-forwarded-proto')).toBe('http')
    expect(received('x-forwarded-port')).toBe('8000')
    expect(received('forwarded')).toBe(`for=127.0.0.1;host="${hostName()}:8000";proto=http`)
  })

  it('serves one request after the other over one connection on each side', async () => {
    const socket = dial(platform)
    for (let turn = 0; turn < 3; turn++) {
      socket.write(`POST /${turn} HTTP/1.1\r\nHost: ${hostName()}\r\nContent-Length: 2\r\n\r\nhi`)
      await readUntil(socket, new RegExp(`hello from /${turn}`))
    }
    socket.destroy()
    expect(service.connections).toBe(1)
  })

  it('takes chunked uploads with trailers as they come, and gives chunked answers with trailers', async () => {
    let seen = ''
    await using echo = await serve((request, response) => {
      response.writeHead(200, { trailer: 'X-Sum' })
      request.on('data', (chunk) => {
        seen += chunk
        response.write(chunk)
      })
      request.once('end', () => {
        response.addTrailers({ 'X-Sum': `${seen.length} ${request.trailers['x-check']}` })
        response.end()
      })
    })
    const socket = dial(platform)
    const head = `POST / HTTP/1.1\r\nHost: ${hostName(echo.port)}\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n`
    socket.write(`${head}Trailer: X-Check\r\nConnection: close\r\n\r\n5\r\nfirst\r\n`)
    await readUntil(socket, /first/)
    socket.write('6\r\nsecond\r\n0\r\nX-Check: ok\r\n\r\n')
    expect(await readAll(socket)).toMatch(/second[\s\S]*\r\n0\r\nX-Sum: 11 ok\r\n\r\n$/)
  })

  it('tells a service in trailers no more than in headers', async () => {
    const socket = dial(platform)
    socket.write(`POST / HTTP/1.1\r\nHost: ${hostName()}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n`)
    socket.write('2\r\nok\r\n0\r\nX-Forwarded-For: 10.9.9.9\r\nX_Real_IP: 10.9.9.9\r\nX-Sum: 2\r\n\r\n')
    await readAll(socket)
    expect(got.trailers).toEqual(['X-Sum', '2'])
  })

  it('passes `Expect: 100-continue` on, and the refusal of a body', async () => {
    await using picky = await serve(() => {})
    picky.server.on('checkContinue', (request, response) => {
      if (request.url === '/no') return void response.writeHead(417).end()
      response.writeContinue()
      void bodyOf(request).then((body) => response.end(`got ${body}`))
    })
    const socket = dial(platform)
    const head = `Host: ${hostName(picky.port)}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n`
    socket.write(`PUT /yes HTTP/1.1\r\n${head}`)
    expect(await readUntil(socket, /\r\n\r\n/)).toBe('HTTP/1.1 100 Continue\r\n\r\n')
    socket.write('body')
    expect(await readUntil(socket, /got body/)).toContain('200 OK')
    socket.write(`PUT /no HTTP/1.1\r\n${head}`)
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 417 [\s\S]*connection: close/i)
  })

  it('does not expect a client of HTTP/1.0 to know of `100 Continue`', async () => {
    const heads: (string | undefined)[] = []
    await using eager = await serve((request, response) => {
      heads.push(request.headers.expect)
      response.writeContinue()
      void bodyOf(request).then((body) => response.end(`got ${body}`))
    })
    eager.server.on('checkContinue', (request, response) => void eager.server.emit('request', request, response))
    const head = `Host: ${hostName(eager.port)}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n`
    const answer = await exchange(platform, `PUT / HTTP/1.0\r\n${head}body`)
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK[\s\S]*got body$/)
    expect(heads).toEqual([undefined])
  })

  it('sends events as they happen', async () => {
    let next = (): void => {}
    await using events = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.flushHeaders()
      next = () => response.write('data: now\n\n')
    })
    const socket = dial(platform)
    socket.write(`GET / HTTP/1.1\r\nHost: ${hostName(events.port)}\r\n\r\n`)
    await readUntil(socket, /event-stream[\s\S]*\r\n\r\n/)
    next()
    await readUntil(socket, /data: now/)
    socket.destroy()
  })

  it('is joined with its client by WebSocket, half-closed ends and all other upgrades', async () => {
    await using web = await serve((_request, response) => void response.end('plain'))
    const sockets = new WebSocketServer({ noServer: true })
    web.server.on('upgrade', (request, socket, head) => {
      if (request.headers.upgrade === 'websocket') {
        sockets.handleUpgrade(request, socket, head, (ws) =>
          ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary })),
        )
      } else if (request.headers.upgrade === 'lines') {
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\nX-Own: 1\r\n\r\n')
        socket.once('end', () => socket.end('after your end'))
        socket.on('data', (chunk: Buffer) => socket.write(chunk))
      } else socket.end('HTTP/1.1 400 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope')
    })
    const ws = new WebSocket(`${platform.url.replace('http', 'ws')}/`, { headers: { host: hostName(web.port) } })
    await new Promise((resolve) => ws.once('open', resolve))
    const echoed = new Promise<Buffer>((resolve) => ws.once('message', resolve))
    ws.send(Buffer.alloc(1024 * 1024, 7))
    expect((await echoed).equals(Buffer.alloc(1024 * 1024, 7))).toBe(true)
    const closed = new Promise((resolve) => ws.once('close', resolve))
    ws.close(1000, 'done')
    expect(await closed).toBe(1000)

    const upgrade = (protocol: string) =>
      `GET / HTTP/1.1\r\nHost: ${hostName(web.port)}\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`
    const lines = dial(platform)
    lines.end(`${upgrade('lines')}early`)
    expect(await readAll(lines)).toMatch(/^HTTP\/1\.1 101 [\s\S]*X-Own: 1\r\n\r\nearlyafter your end$/)
    expect(await exchange(platform, upgrade('other'))).toMatch(
      /^HTTP\/1\.1 400 No\r\n[\s\S]*connection: close[\s\S]*nope$/i,
    )
  })

  it('serves a client that offers HTTP/2 by the way, also with a body', async () => {
    const offer = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n'
    const socket = dial(platform)
    socket.write(`POST /h2 HTTP/1.1\r\nHost: ${hostName()}\r\n${offer}Content-Length: 4\r\n\r\nbody`)
    await readUntil(socket, /hello from \/h2/)
    expect(got.body).toBe('body')
    expect(received('upgrade')).toBeUndefined()
    socket.write(`GET /health HTTP/1.1\r\nHost: localhost\r\n${offer}\r\n`)
    expect(await readUntil(socket, /\r\n\r\n/)).toMatch(/^HTTP\/1\.1 200 /)
    socket.destroy()
  })

  it('is redirected to by its public name', async () => {
    let location = ''
    await using redirecting = await serve((_request, response) => {
      response.writeHead(302, { location, 'set-cookie': ['a=1; Domain=localhost; Path=/', 'b=2; HttpOnly'] }).end()
    })
    const { port } = redirecting
    const answered = async (to: string, byHeaders = false): Promise<string | undefined> => {
      location = to
      const more = byHeaders ? `E2b-Sandbox-Id: ${id}\r\nE2b-Sandbox-Port: ${port}\r\n` : ''
      const answer = await get('/', more, byHeaders ? 'localhost' : `${hostName(port)}:99`)
      expect(answer).toMatch(/set-cookie: a=1; Path=\/\r\nset-cookie: b=2; HttpOnly\r\n/i)
      return /^location: (.*)\r$/im.exec(answer)?.[1]
    }
    expect(await answered(`http://localhost:${port}/x?y#z`)).toBe(`http://${hostName(port)}:99/x?y#z`)
    expect(await answered(`http://127.0.0.1:${port}`)).toBe(`http://${hostName(port)}:99`)
    expect(await answered('http://[::1]:3000/')).toBe(`http://${hostName(3000)}:99/`)
    expect(await answered(`//0.0.0.0:${port}/x`)).toBe(`//${hostName(port)}:99/x`)
    expect(await answered('http://localhost/')).toBe(`http://${hostName(80)}:99/`)
    expect(await answered(`http://169.254.0.21:${port}/x`, true)).toBe('/x')
    for (const own of [
      '/x',
      'x',
      'https://example.com/',
      'http://user@localhost/',
      'http://localhost.evil/',
      'http://localhost:49983/',
    ])
      expect(await answered(own)).toBe(own)
  })

  it('lets nobody wait for what breaks off, and nobody take half for the whole', async () => {
    let reset = (): void => {}
    await using breaking = await serve((request, response) => {
      if (request.url === '/early') return void request.socket.destroy()
      if (request.url === '/garbage') return void request.socket.end('SSH-2.0-nonsense\r\n')
      if (request.url === '/status') return void request.socket.end('HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n')
      response.writeHead(200, request.url === '/sized' ? { 'content-length': 100 } : {})
      response.write('half')
      reset = () => void request.socket.resetAndDestroy()
    })
    for (const path of ['/early', '/garbage', '/status']) {
      const answer = await get(path, '', hostName(breaking.port))
      expect([answer.slice(0, 12), codeOf(answer)]).toEqual(['HTTP/1.1 502', 'guest_error'])
    }
    for (const path of ['/sized', '/chunked']) {
      const socket = dial(platform)
      socket.write(`GET ${path} HTTP/1.1\r\nHost: ${hostName(breaking.port)}\r\n\r\n`)
      // Node takes a reset that comes at once with bytes for an end.
      await readUntil(socket, /half/)
      const rest = readAll(socket)
      reset()
      expect(await rest).toMatch(/^(?:\r\n)?<broken off>$/)
    }
  })

  it('hears when its client leaves', async () => {
    const left = new Promise<void>((resolve) => {
      service.server.removeAllListeners('request')
      service.server.on('request', (request, response) => {
        request.resume()
        response.once('close', resolve)
        response.write('x')
      })
    })
    const socket = dial(platform)
    socket.write(`GET / HTTP/1.1\r\nHost: ${hostName()}\r\n\r\n`)
    await readUntil(socket, /x/)
    socket.destroy()
    await left
  })

  it('is asked again when a kept connection had just ended, unless that might do something twice', async () => {
    let sockets = 0
    const raw = createTcp((socket) => {
      sockets++
      socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))
      let answers = 0
      socket.on('data', () => {
        if (++answers === 2) socket.resetAndDestroy()
      })
      socket.on('error', () => {})
    })
    await new Promise<void>((resolve) => raw.listen(0, '127.0.0.1', resolve))
    const address = raw.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    expect(await get('/', '', hostName(port))).toContain('ok')
    expect(await get('/', '', hostName(port))).toContain('ok')
    expect(sockets).toBe(2)
    const post = `POST / HTTP/1.1\r\nHost: ${hostName(port)}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`
    expect(await exchange(platform, post)).toContain('ok')
    expect(codeOf(await exchange(platform, post))).toBe('guest_error')
    raw.close()
  })

  it('answers a client that sends its body while it is told no', async () => {
    service.server.removeAllListeners('request')
    service.server.on(
      'request',
      (_request, response) => void response.writeHead(413, { 'content-length': 3 }).end('big'),
    )
    const answer = await new Promise<number | undefined>((resolve, reject) => {
      const asked = ask(`${platform.url}/`, { method: 'POST', headers: { host: hostName() } }, (response) => {
        response.resume()
        resolve(response.statusCode)
      })
      asked.on('error', reject)
      asked.end(Buffer.alloc(8 * 1024 * 1024))
    })
    expect(answer).toBe(413)
  })
})
