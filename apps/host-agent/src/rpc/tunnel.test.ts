import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import type { ServiceImpl } from '@connectrpc/connect'
import { GUEST_AGENT_PORT, LEASE_PROTOCOL, TUNNEL_PROTOCOL } from '@wrenn/protocol'
import type { HostService } from '@wrenn/protocol/host'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CapsuleManager } from '../capsule/manager.js'
import { TestMachine } from '../testing/test-machine.js'
import { startServer } from './server.js'
import { createTunnelServer } from './tunnel.js'

let machine: TestMachine
let manager: CapsuleManager
let capsuleId: string
let socketPath: string
let server: AsyncDisposable

beforeAll(async () => {
  machine = await TestMachine.create()
  ;({ manager, capsuleId } = await machine.startWithCapsule())
  socketPath = join(machine.dir, 'agent.sock')
  const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0]
  const none = {} as ServiceImpl<typeof HostService> // every call answers `unimplemented`
  const tunnels = createTunnelServer(() => manager)
  server = await startServer(none, tunnels, { socketPath, uid, gid })
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  await machine[Symbol.asyncDispose]()
})

interface Service extends AsyncDisposable {
  readonly port: number
}

async function serve(host: string, onSocket: (socket: Socket) => void): Promise<Service> {
  const service: Server = createServer({ allowHalfOpen: true }, onSocket)
  await new Promise<void>((resolve) => service.listen(0, host, resolve))
  const address = service.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return { port, [Symbol.asyncDispose]: () => new Promise((resolve) => service.close(() => resolve())) }
}

const guestAddress = (): string => manager.get(capsuleId)?.resources?.guestAddress ?? ''

function open(path: string, more = ''): Socket {
  const socket = connect({ path: socketPath, allowHalfOpen: true }).on('error', () => {})
  socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: ${TUNNEL_PROTOCOL}\r\n\r\n${more}`)
  return socket
}

const to = (port: number, more = ''): Socket => open(`/tunnel/${capsuleId}/${port}`, more)

async function readAll(socket: Socket): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of socket) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

const SWITCHED = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${TUNNEL_PROTOCOL}\r\n\r\n`

describe('a tunnel', () => {
  it.each(['the guest address', '127.0.0.1'])(
    'reaches what listens on %s, and each direction ends by itself',
    async (host) => {
      const address = host === '127.0.0.1' ? host : guestAddress()
      await using service = await serve(address, (socket) => {
        socket.once('end', () => socket.end(', answered after the end'))
        socket.on('data', (chunk) => socket.write(chunk))
      })
      const socket = to(service.port, 'early')
      socket.end(' and late')
      expect(await readAll(socket)).toBe(`${SWITCHED}early and late, answered after the end`)
    },
  )

  it('stops reading from a service whose client does not read, and loses nothing', async () => {
    const size = 64 * 1024 * 1024
    let written = 0
    await using service = await serve(guestAddress(), (socket) => {
      const block = Buffer.alloc(1024 * 1024)
      const more = (): void => {
        while (written < size) {
          written += block.length
          if (!socket.write(block)) return void socket.once('drain', more)
        }
        socket.end()
      }
      more()
    })
    const socket = to(service.port)
    socket.pause()
    let before = -1
    await machine.until(() => {
      const isStill = written > 0 && written === before
      before = written
      return isStill || undefined
    })
    expect(written).toBeLessThan(size)
    let length = -SWITCHED.length
    for await (const chunk of socket) length += chunk.length
    expect(length).toBe(size)
  })

  it('breaks off with its guest', async () => {
    await using service = await serve(guestAddress(), (socket) => {
      socket.on('error', () => {}).once('end', () => socket.end())
      socket.resume().write('hello')
    })
    const socket = to(service.port)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    await new Promise<void>((resolve) => socket.on('data', (chunk) => String(chunk).endsWith('hello') && resolve()))
    await manager.pause(capsuleId, 'request')
    socket.end()
    await closed
    expect(await readAll(to(service.port))).toContain('wrenn-error-code: invalid_state')
    await manager.resume(capsuleId)
  })

  it('is use of its capsule when something passes, not by being there', async () => {
    await using service = await serve(guestAddress(), (socket) => void socket.pipe(socket))
    const socket = to(service.port)
    await new Promise((resolve) => socket.once('data', resolve))
    expect(manager.activity.streams(capsuleId)).toBe(0)
    socket.end()
    await readAll(socket)
  })

  it('leads to the guest agent as its clients reach it, by a secret that is on no wire but to the guest', async () => {
    const socket = to(
      GUEST_AGENT_PORT,
      'POST /files?path=x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n',
    )
    const answer = await readAll(socket)
    expect(answer).toMatch(/^HTTP\/1\.1 101 /)
    expect(JSON.parse(answer.slice(answer.indexOf('{')))).toEqual({
      method: 'POST',
      url: '/files?path=x',
      headers: { host: 'a', 'content-length': '0', connection: 'close' },
    })
  })

  it('says that an agent of before has nothing for clients', async () => {
    const agent = machine.agents.get(capsuleId)
    if (agent === undefined) throw new Error('no agent')
    agent.knowsClients = false
    const answer = await readAll(to(GUEST_AGENT_PORT))
    expect(answer).toMatch(/^HTTP\/1\.1 502 [\s\S]*wrenn-error-code: guest_error[\s\S]*make a new one/)
    agent.knowsClients = true
  })

  it('says that nobody listens, and leads nowhere else', async () => {
    const service = await serve('127.0.0.1', () => {})
    await service[Symbol.asyncDispose]()
    expect(await readAll(to(service.port))).toMatch(/^HTTP\/1\.1 502 [\s\S]*wrenn-error-code: port_closed/)
    const unknown = `/tunnel/cl-${'0'.repeat(25)}/80`
    expect(await readAll(open(unknown))).toContain('wrenn-error-code: capsule_not_found')
    for (const port of ['0', '65536', `0${GUEST_AGENT_PORT}`, `+${GUEST_AGENT_PORT}`, '4998%33', 'x', '80/x', ''])
      expect(await readAll(open(`/tunnel/${capsuleId}/${port}`))).toMatch(/^HTTP\/1\.1 404 /)
  })

  it('is not needed by who has a lease on the guest, which tells where that is for as long as it is there', async () => {
    const lease = (path: string): Socket => {
      const socket = connect({ path: socketPath, allowHalfOpen: true }).on('error', () => {})
      socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: ${LEASE_PROTOCOL}\r\n\r\n`)
      return socket
    }
    const said = async (socket: Socket): Promise<string> =>
      String(await new Promise((resolve) => socket.once('data', resolve)))
    const socket = lease(`/lease/${capsuleId}`)
    expect(await said(socket)).toBe(`${SWITCHED.replace(TUNNEL_PROTOCOL, LEASE_PROTOCOL)}${guestAddress()}\n`)
    const before = manager.get(capsuleId)?.lastActiveAtMs ?? 0
    await machine.until(() => Date.now() > before + 1_000 || undefined)
    socket.write('.')
    expect(await said(socket)).toBe('.')
    expect(manager.get(capsuleId)?.lastActiveAtMs).toBeGreaterThan(before)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.once('end', () => socket.destroy())
    await manager.pause(capsuleId, 'request')
    await closed
    expect(await readAll(lease(`/lease/${capsuleId}`))).toContain('wrenn-error-code: invalid_state')
    await manager.resume(capsuleId)
    for (const path of [`/lease/${capsuleId}/80`, `/tunnel/${capsuleId}/80`, '/lease/', `/lease/../lease/${capsuleId}`])
      expect(await readAll(lease(path))).toMatch(/^HTTP\/1\.1 404 /)
  })

  it('shares its listener with the RPC', async () => {
    const plain = connect(socketPath)
    plain.end('GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n')
    expect(await readAll(plain)).toMatch(/^HTTP\/1\.1 404 /)
    const http2 = connect(socketPath)
    http2.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0')
    const first: Buffer = await new Promise((resolve) => http2.once('data', resolve))
    expect(first[3]).toBe(4) // its settings
    http2.destroy()
  })
})
