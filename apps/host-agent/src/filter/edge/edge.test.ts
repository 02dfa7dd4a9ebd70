import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { Agent, createServer as createHttps, type Server as HttpsServer, request } from 'node:https'
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import { type Credentials, createAuthority, issueHostCertificate } from '@wrenn/certificates'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { EgressPolicy } from '../../host/network/policy.js'
import { openTcp } from '../connection.js'
import { Filter, type FilterOptions } from '../filter.js'
import { NameResolver } from '../resolver.js'

const GUEST = '127.0.0.1'
const TOKEN = 'Bearer s3cret-of-the-edge'
const rules = [
  { host: 'api.example', headers: { authorization: TOKEN, 'x-team': 'blue' } },
  { host: '*.wide.example', headers: { authorization: 'wide' } },
  { host: '*.deep.wide.example', headers: { authorization: 'deep' } },
]

let world: Credentials
let ours: Credentials
let open: EgressPolicy
let site: HttpsServer
let silent: Server
let front: Server
let filter: Filter
/** Where connections to 9.9.9.9 end. */
let sitePort: number
let onOpened: () => void
const failures: unknown[] = []
const sockets = new Set<Socket>()
const portOf = (server: Server): number => {
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}
const listen = async (server: Server): Promise<number> => {
  server.on('connection', (socket: Socket) => sockets.add(socket))
  server.listen(0, GUEST)
  await once(server, 'listening')
  return portOf(server)
}

beforeAll(async () => {
  world = await createAuthority('the world', undefined)
  ours = await createAuthority('ours', undefined)
  open = { internet: true, allow: [], deny: [], intercept: true, rules, authority: ours }
})
beforeEach(async () => {
  failures.length = 0
  onOpened = () => {}
  site = await makeSite(await issueHostCertificate(world, 'api.example'))
  sitePort = await listen(site)
  silent = createServer((socket) => {
    socket.on('error', () => {})
    socket.write('220 I speak first\r\n')
  })
  await listen(silent)
  filter = makeFilter()
  front = createServer({ allowHalfOpen: true }, (socket) => {
    Object.defineProperty(socket, 'localAddress', { value: '9.9.9.9' })
    filter.accept(socket)
  })
  await listen(front)
  filter.answer({ op: 'set', source: GUEST, policy: open })
})
afterEach(async () => {
  filter.answer({ op: 'forget', source: GUEST })
  for (const socket of sockets) socket.destroy()
  for (const server of [site, silent, front]) await new Promise((resolve) => server.close(resolve))
  expect(failures).toEqual([])
})
afterAll(() => sockets.clear())

function makeFilter(options: Pick<FilterOptions, 'edgeTimes' | 'terminated'> = {}): Filter {
  return new Filter({
    ...options,
    resolver: new NameResolver(async () => [{ address: '9.9.9.9', ttl: 60 }]),
    version: 'of a test',
    ca: [world.cert],
    // The guest’s side has a loopback address, where nothing is public: what it asks for is the site.
    open: async () => {
      const socket = await openTcp(GUEST, sitePort)
      onOpened()
      return socket
    },
    onFailure: (error) => failures.push(error),
  })
}

async function makeSite({ cert, key }: Credentials): Promise<HttpsServer> {
  const server = createHttps({ cert, key }, (incoming, response) => {
    incoming.on('error', () => {})
    if (incoming.url === '/count') {
      let bytes = 0
      incoming.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      incoming.on('end', () => response.end(String(bytes)))
      return
    }
    if (incoming.url === '/slow') {
      response.write('first')
      incoming.resume().once('end', () => response.end(' last'))
      return
    }
    response.setHeader('Set-Cookie', ['a=1', 'b=2'])
    response.end(JSON.stringify({ headers: incoming.headers, url: incoming.url }))
  })
  server.on('upgrade', (incoming: IncomingMessage, socket) => {
    socket.on('error', () => {})
    if (incoming.url === '/no') return void socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno')
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n')
    socket.write(`token ${incoming.headers.authorization};`)
    socket.pipe(socket)
  })
  server.on('tlsClientError', () => {})
  return server
}

interface Got {
  readonly status: number | undefined
  readonly text: string
  readonly raw: readonly string[]
}
interface Asked {
  readonly name?: string
  readonly host?: string
  readonly path?: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: readonly Buffer[]
  readonly agent?: Agent
  readonly ca?: string
}
/** As a guest’s program asks, which trusts ours alone unless told otherwise. */
async function get({
  name = 'api.example',
  host = name,
  path = '/',
  ca = ours.cert,
  ...asked
}: Asked = {}): Promise<Got> {
  const outgoing = request({
    ...{ host: GUEST, port: portOf(front), servername: name, ca, path, agent: asked.agent ?? false },
    method: asked.method ?? 'GET',
    headers: { host, ...asked.headers },
  })
  for (const chunk of asked.body ?? []) outgoing.write(chunk)
  outgoing.end()
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
  let text = ''
  for await (const chunk of response) text += String(chunk)
  return { status: response.statusCode, text, raw: response.rawHeaders }
}
const seen = ({ text }: Got): IncomingHttpHeaders => JSON.parse(text).headers

async function connectTo(name: string, options: ConnectionOptions & { allowHalfOpen?: boolean } = {}) {
  const socket = connectTls({ host: GUEST, port: portOf(front), servername: name, ca: ours.cert, ...options })
  await once(socket, 'secureConnect')
  return socket
}
async function until(socket: TLSSocket | Socket, pattern: RegExp): Promise<string> {
  let text = ''
  for await (const chunk of socket) {
    text += String(chunk)
    if (pattern.test(text)) break
  }
  return text
}

describe('the edge', () => {
  it('sets headers in requests to hosts with rules, in place of the guest’s', async () => {
    const got = await get({ headers: { Authorization: 'guessed', 'X-Mine': 'kept' }, path: '/a?b=c' })
    expect(got.status).toBe(200)
    expect(seen(got)).toMatchObject({ host: 'api.example', authorization: TOKEN, 'x-team': 'blue', 'x-mine': 'kept' })
    expect(JSON.parse(got.text).url).toBe('/a?b=c')
    expect(got.raw.filter((name) => name === 'Set-Cookie')).toHaveLength(2)
    expect(got.raw.join('\n')).not.toContain(TOKEN)
  })

  it('takes several requests on a connection, as one connection to the host', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: ours.cert })
    const before = sockets.size
    for (const path of ['/one', '/two', '/three']) expect(JSON.parse((await get({ agent, path })).text).url).toBe(path)
    // The guest's, the host's, and the one that was opened before it was known who speaks first.
    expect(sockets.size - before).toBe(3)
    agent.destroy()
  })

  it('streams bodies of any length and framing, in both directions', async () => {
    const chunk = randomBytes(256 * 1024)
    const body = Array.from({ length: 16 }, () => chunk)
    const length = String(chunk.length * body.length)
    const method = 'POST'
    expect((await get({ method, path: '/count', body })).text).toBe(length)
    expect((await get({ method, path: '/count', body, headers: { 'content-length': length } })).text).toBe(length)
    const socket = await connectTo('api.example')
    socket.write('POST /slow HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n')
    // The answer begins before the request has ended.
    expect(await new Promise((resolve) => socket.once('data', (data) => resolve(String(data))))).toContain('first')
    socket.write('0\r\n\r\n')
    expect(await until(socket, /last/)).toContain('last')
    socket.destroy()
  })

  it('tells a client that waits to go on when the host does', async () => {
    const socket = await connectTo('api.example')
    socket.write('POST /count HTTP/1.1\r\nHost: api.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n')
    expect(await new Promise((resolve) => socket.once('data', (data) => resolve(String(data))))).toContain(
      '100 Continue',
    )
    socket.write('abc')
    expect(await until(socket, /\r\n\r\n.*3/s)).toContain('200 OK')
    socket.destroy()
  })

  it.each([
    ['a status that cannot be passed on', 'HTTP/1.1 200 O\x01K\r\ncontent-length: 0\r\n\r\n'],
    ['what is no answer', 'no answer\r\n\r\n'],
  ])('goes on after %s', async (_what, answer) => {
    site.removeAllListeners('request')
    site.on('request', ({ socket }) => socket.end(answer))
    const got = await get().catch((error: Error) => error)
    expect(got instanceof Error || got.status === 502).toBe(true)
    site.removeAllListeners('request')
    site.on('request', (_incoming, response) => response.end('here'))
    expect((await get()).text).toBe('here')
  })

  it('ends a connection with more requests than it waits for', async () => {
    site.removeAllListeners('request')
    let requests = 0
    site.on('request', () => {
      requests += 1
    })
    const socket = await connectTo('api.example')
    socket.on('error', () => {})
    const ended = once(socket, 'close')
    socket.write('GET / HTTP/1.1\r\nHost: api.example\r\n\r\n'.repeat(17))
    await ended
    expect(requests).toBeLessThan(17)
  })

  it('passes requests of one connection on by one connection, one after the other', async () => {
    const arrived: string[] = []
    let connections = 0
    const waiting: (() => void)[] = []
    site.on('secureConnection', () => {
      connections += 1
    })
    site.removeAllListeners('request')
    site.on('request', ({ url = '' }, response) => {
      arrived.push(url)
      waiting.push(() => response.end(`answer ${url};`))
    })
    const socket = await connectTo('api.example')
    socket.write(['/a', '/b', '/c'].map((path) => `GET ${path} HTTP/1.1\r\nHost: api.example\r\n\r\n`).join(''))
    const answers = until(socket, /answer \/c;/)
    for (const count of [1, 2, 3]) {
      await expect.poll(() => waiting.length).toBe(count)
      waiting[count - 1]?.()
    }
    expect((await answers).match(/answer \/.;/g)).toEqual(['answer /a;', 'answer /b;', 'answer /c;'])
    expect(arrived).toEqual(['/a', '/b', '/c'])
    expect(connections).toBe(1)
    socket.destroy()
  })

  it('sends nothing for a guest that is gone', async () => {
    const arrived: string[] = []
    site.removeAllListeners('request')
    site.on('request', ({ url = '' }) => arrived.push(url))
    const ended = new Promise((resolve) => site.on('secureConnection', (socket) => socket.once('close', resolve)))
    const socket = await connectTo('api.example')
    socket.write('GET /a HTTP/1.1\r\nHost: api.example\r\n\r\n'.repeat(3))
    await expect.poll(() => arrived.length).toBe(1)
    socket.destroy()
    await ended
    // A host that does not come to its TLS is left, too.
    const deaf = createServer((socket) => socket.on('error', () => {}))
    sitePort = await listen(deaf)
    const [toDeaf] = await Promise.all([connectTo('api.example'), once(deaf, 'connection')])
    const again = once(deaf, 'connection')
    toDeaf.write('GET /b HTTP/1.1\r\nHost: api.example\r\n\r\n')
    const [left] = (await again) as [Socket]
    const gone = new Promise((resolve) => left.resume().once('close', resolve))
    toDeaf.destroy()
    await gone
    expect(arrived).toEqual(['/a'])
    deaf.close()
  })

  it('outlives a site that resets before anybody has spoken', async () => {
    const resetting = createServer()
    sitePort = await listen(resetting)
    const reached = once(resetting, 'connection')
    const opened = new Promise<void>((resolve) => {
      onOpened = resolve
    })
    const socket = connectTcp(portOf(front), GUEST)
    socket.on('error', () => {})
    const closed = new Promise((resolve) => socket.once('close', resolve))
    const [[atSite]] = await Promise.all([reached, opened])
    atSite.resetAndDestroy()
    await closed
    await new Promise((resolve) => resetting.close(resolve))
    sitePort = portOf(site)
    expect((await get()).status).toBe(200)
  })

  it('delivers what a host said before its end, and then ends', async () => {
    const body = randomBytes(8 * 2 ** 20).toString('hex')
    site.removeAllListeners('request')
    site.on('request', ({ socket }) => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      socket.end(body)
    })
    expect((await get()).text === body).toBe(true)
  })

  it('leaves a guest that goes on when the host has ended, and one that never comes to its request', async () => {
    filter = makeFilter({ edgeTimes: { waitMs: 60_000, lingerMs: 100 } })
    filter.answer({ op: 'set', source: GUEST, policy: open })
    site.removeAllListeners('request')
    let requests = 0
    site.on('request', ({ socket }) => {
      requests += 1
      socket.end('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')
    })
    for (const more of ['', 'GET / HTTP/1.1\r\nHost: api.example\r\n\r\n']) {
      const socket = await connectTo('api.example', { allowHalfOpen: true })
      socket.on('error', () => {}).resume()
      const ended = once(socket, 'end')
      socket.write('GET / HTTP/1.1\r\nHost: api.example\r\n\r\n')
      await ended
      socket.write(more)
      await expect.poll(() => filter.connections).toBe(0)
      socket.destroy()
    }
    expect(requests).toBe(2)
    filter = makeFilter({ edgeTimes: { waitMs: 100, lingerMs: 100 } })
    filter.answer({ op: 'set', source: GUEST, policy: open })
    const slow = await connectTo('api.example')
    slow.on('error', () => {}).resume()
    const left = new Promise((resolve) => slow.once('close', resolve))
    slow.write('GET / HTTP/1.1\r\nHo')
    await left
  })

  it('ends TLS for no more connections of a source than it may, and says so', async () => {
    filter = makeFilter({ terminated: { all: 2, perSource: 1 } })
    filter.answer({ op: 'set', source: GUEST, policy: open })
    const socket = await connectTo('api.example')
    await expect(get()).rejects.toThrow(/ECONNRESET|socket hang up|disconnected/)
    const { refused } = filter.answer({ op: 'refused', source: GUEST })
    expect(refused).toMatchObject([{ name: 'api.example', reason: 'too_many' }])
    socket.destroy()
    await expect.poll(() => filter.connections).toBe(0)
    expect((await get()).status).toBe(200)
  })

  it.each([
    ['a request with two Hosts', 'GET / HTTP/1.1\r\nHost: api.example\r\nHost: other.example\r\n\r\n'],
    [
      'a WebSocket with a body',
      'GET / HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n',
    ],
  ])('refuses %s', async (_what, text) => {
    const socket = await connectTo('api.example')
    socket.write(text)
    expect(await until(socket, /\n$/)).toMatch(/^HTTP\/1\.1 400 /)
    socket.destroy()
  })

  it('passes WebSockets, and their refusals', async () => {
    const upgrade = (path: string): string =>
      `GET ${path} HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`
    const socket = await connectTo('api.example')
    socket.write(`${upgrade('/')}early `)
    expect(await new Promise((resolve) => socket.once('data', (data) => resolve(String(data))))).toContain('101 ')
    socket.write('late')
    expect(await until(socket, /late/)).toContain(`token ${TOKEN};early late`)
    socket.destroy()
    const refused = await connectTo('api.example')
    refused.write(upgrade('/no'))
    expect(await until(refused, /no$/)).toMatch(/^HTTP\/1\.1 403 /)
    refused.destroy()
    const other = await connectTo('api.example')
    other.write('GET / HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n')
    expect(await until(other, /\r\n\r\n/)).toMatch(/^HTTP\/1\.1 400 /)
    other.destroy()
  })

  it.each([
    ['for another host', 421, { host: 'other.example' }],
    ['for an address', 421, { host: '9.9.9.9' }],
    ['for a whole URL', 421, { path: 'https://other.example/' }],
    ['that asks to be sent back', 405, { method: 'TRACE' }],
  ])('refuses a request inside %s', async (_what, status, asked) => {
    expect(await get(asked)).toMatchObject({ status, text: expect.not.stringContaining(TOKEN) })
  })

  it('speaks HTTP/1.1 to clients that would speak more', async () => {
    const socket = await connectTo('api.example', { ALPNProtocols: ['h2', 'http/1.1'] })
    expect(socket.alpnProtocol).toBe('http/1.1')
    socket.destroy()
    const ALPNProtocols = ['h2']
    await expect(connectTo('api.example', { ALPNProtocols })).rejects.toThrow()
  })

  it.each([
    ['by an authority that nobody knows', () => ours, 'api.example'],
    ['for another name', () => world, 'other.example'],
  ])('gives nothing to a host whose certificate is made %s', async (_what, authority, name) => {
    const { cert, key } = await issueHostCertificate(authority(), name)
    site.setSecureContext({ cert, key })
    let requests = 0
    site.on('request', () => {
      requests += 1
    })
    const got = await get()
    expect(got).toMatchObject({ status: 502, text: expect.not.stringContaining(TOKEN) })
    expect(requests).toBe(0)
  })

  it('says that a host is away', async () => {
    sitePort = 1
    // What it asks for by address is away, too, so that the guest gets no further than before.
    await expect(get()).rejects.toThrow(/ECONNRESET|socket hang up/)
  })

  it('takes the nearest rule of those that have a name', async () => {
    const { cert, key } = await issueHostCertificate(world, 'x.deep.wide.example')
    site.setSecureContext({ cert, key })
    expect(seen(await get({ name: 'x.deep.wide.example' })).authorization).toBe('deep')
    const other = await issueHostCertificate(world, 'a.b.wide.example')
    site.setSecureContext(other)
    expect(seen(await get({ name: 'a.b.wide.example' })).authorization).toBe('wide')
  })

  it('leaves alone what has no rule: its TLS is the host’s own', async () => {
    site.setSecureContext(await issueHostCertificate(world, 'plain.example'))
    const got = await get({ name: 'plain.example', ca: world.cert, headers: { authorization: 'mine' } })
    expect(seen(got).authorization).toBe('mine')
    await expect(get({ name: 'plain.example' })).rejects.toThrow(/certificate/)
  })

  it('lets a host speak first', async () => {
    sitePort = portOf(silent)
    const socket = connectTcp(portOf(front), GUEST)
    expect(await until(socket, /first/)).toContain('220 I speak first')
    socket.destroy()
  })

  it('uses new rules for the next requests, those that it has when it is told none, and none after that', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: ours.cert })
    await get({ agent })
    const changed = [{ host: 'api.example', headers: { authorization: 'new' } }]
    filter.answer({ op: 'set', source: GUEST, policy: { ...open, rules: changed } })
    expect(seen(await get()).authorization).toBe('new')
    expect(seen(await get({ agent })).authorization).toBe('new')
    const { rules: _, authority, ...unknown } = open
    filter.answer({ op: 'set', source: GUEST, policy: { ...unknown, authority } })
    expect(seen(await get()).authorization).toBe('new')
    // Of the capsule that has the address next, nothing is known.
    filter.answer({ op: 'set', source: GUEST, policy: { ...unknown, authority: world } })
    expect(seen(await get({ ca: world.cert })).authorization).toBeUndefined()
    filter.answer({ op: 'set', source: GUEST, policy: { ...open, rules: changed } })
    filter.answer({ op: 'set', source: GUEST, policy: { ...unknown, authority } })
    expect(seen(await get()).authorization).toBe('new')
    filter.answer({ op: 'set', source: GUEST, policy: { ...unknown, intercept: false } })
    await expect(get({ agent })).rejects.toThrow(/ECONNRESET|socket hang up/)
    agent.destroy()
    filter.answer({ op: 'set', source: GUEST, policy: { ...unknown, learn: true } })
    expect(seen(await get({ ca: world.cert })).authorization).toBeUndefined()
  })

  it('opens no way that the policy does not', async () => {
    filter.answer({ op: 'set', source: GUEST, policy: { ...open, internet: false, allow: ['other.example'] } })
    await expect(get()).rejects.toThrow(/ECONNRESET|socket hang up|disconnected/)
    filter.answer({ op: 'set', source: GUEST, policy: { ...open, internet: false, allow: ['api.example'] } })
    const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: ours.cert })
    expect(seen(await get({ agent })).authorization).toBe(TOKEN)
    filter.answer({ op: 'set', source: GUEST, policy: { ...open, deny: ['api.example'] } })
    await expect(get({ agent })).rejects.toThrow(/ECONNRESET|socket hang up|disconnected/)
    agent.destroy()
  })
})
