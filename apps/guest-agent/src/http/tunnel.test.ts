import { connect, createServer, type Server, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, SECRET, TOKEN } from '../testing/agent-harness.js'

let harness: AgentHarness
beforeAll(async () => {
  harness = await AgentHarness.start()
  await harness.init({ accessToken: TOKEN })
})
afterAll(() => harness[Symbol.asyncDispose]())

interface Service extends AsyncDisposable {
  readonly port: number
}

async function serve(host: string, onSocket: (socket: Socket) => void): Promise<Service> {
  const server: Server = createServer({ allowHalfOpen: true }, onSocket)
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return { port, [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())) }
}

/** Opens a tunnel and sends `more` right behind the request. */
function open(path: string, more = '', headers: readonly string[] = [`x-wrenn-secret: ${SECRET}`]): Socket {
  const socket = connect({ port: harness.agent.port, host: '127.0.0.1', allowHalfOpen: true })
  const head = [`GET ${path} HTTP/1.1`, 'host: a', 'connection: upgrade', 'upgrade: tcp', ...headers]
  socket.write(`${head.join('\r\n')}\r\n\r\n${more}`)
  socket.on('error', () => {})
  return socket
}

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of socket) chunks.push(chunk)
  return Buffer.concat(chunks)
}

const SWITCHED = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n'

describe('GET /connect/{port}', () => {
  it.each(['127.0.0.1', '::1'])('reaches a service that listens on %s only', async (host) => {
    await using service = await serve(host, (socket) => socket.pipe(socket))
    const socket = open(`/connect/${service.port}`, 'early bytes, ')
    socket.end('later bytes')
    expect((await readAll(socket)).toString()).toBe(`${SWITCHED}early bytes, later bytes`)
  })

  it('delivers all of a large answer to a slow reader although the service has closed', async () => {
    const size = 32 * 1024 * 1024
    await using service = await serve('127.0.0.1', (socket) => {
      socket.resume()
      socket.end(Buffer.alloc(size, 1))
    })
    const socket = open(`/connect/${service.port}`)
    socket.pause()
    socket.end()
    let length = 0
    for await (const chunk of socket) {
      length += chunk.length
      await new Promise(setImmediate)
    }
    expect(length - SWITCHED.length).toBe(size)
  })

  it('carries a large upload and its answer', async () => {
    const size = 16 * 1024 * 1024
    await using service = await serve('127.0.0.1', (socket) => {
      let length = 0
      socket.on('data', (chunk) => {
        length += chunk.length
      })
      socket.once('end', () => socket.end(`got ${length}`))
    })
    const socket = open(`/connect/${service.port}`)
    socket.end(Buffer.alloc(size))
    expect((await readAll(socket)).toString()).toBe(`${SWITCHED}got ${size}`)
  })

  it('ends the service when the client breaks off, and the client when the service does', async () => {
    const sockets: Socket[] = []
    await using service = await serve('127.0.0.1', (socket) => {
      sockets.push(socket.on('error', () => {}))
      socket.write('hello')
    })
    const first = open(`/connect/${service.port}`)
    await new Promise((resolve) => first.once('data', resolve))
    const { eventually } = await import('../testing/eventually.js')
    await eventually('the service to be reached', () => sockets.length === 1)
    const gone = new Promise((resolve) => sockets[0]?.resume().once('close', resolve))
    first.resetAndDestroy()
    sockets[0]?.end()
    await gone
    const second = open(`/connect/${service.port}`)
    await eventually('the service to be reached', () => sockets.length === 2)
    sockets[1]?.resetAndDestroy()
    await readAll(second).catch(() => undefined)
  })

  it('says that nobody listens', async () => {
    const service = await serve('127.0.0.1', () => {})
    const { port } = service
    await service[Symbol.asyncDispose]()
    const answer = (await readAll(open(`/connect/${port}`))).toString()
    expect(answer).toMatch(/^HTTP\/1\.1 502 /)
    expect(answer).toContain(`port ${port} is not open`)
  })

  it('does not lead back to the agent, which would take what comes from inside for a client', async () => {
    expect((await readAll(open(`/connect/${harness.agent.port}`))).toString()).toMatch(/^HTTP\/1\.1 400 /)
  })

  it('is for the host alone, and for ports', async () => {
    for (const headers of [[], ['x-wrenn-secret: wrong'], [`x-access-token: ${TOKEN}`]])
      expect((await readAll(open('/connect/80', '', headers))).toString()).toMatch(/^HTTP\/1\.1 401 /)
    for (const path of ['/connect/0', '/connect/65536', '/connect/x', '/connect/', '/files', '/connect/80/x'])
      expect((await readAll(open(path))).toString()).toMatch(/^HTTP\/1\.1 404 /)
  })
})
