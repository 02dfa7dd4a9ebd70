import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { AppError } from '@wrenn/base'
import { LEASE_PROTOCOL } from '@wrenn/protocol'
import { FakeHost } from '@wrenn/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { GuestLeases } from './guest-leases.js'
import { createHostClient } from './transport.js'
import { createTunnels } from './tunnel.js'

const capsuleId = `cl-${'0'.repeat(25)}`
const { signal } = new AbortController()

let host: FakeHost
let client: ReturnType<typeof createHostClient>
let service: Server
let port: number
let leases: GuestLeases
const accepted: Socket[] = []

beforeAll(async () => {
  host = await FakeHost.start()
  client = createHostClient(host.address)
  await client.client.createCapsule({ capsuleId, template: 'minimal', vcpus: 1, memoryMib: 64 })
  service = createServer({ allowHalfOpen: true }, (socket) => {
    accepted.push(socket.on('error', () => {}))
    socket.pipe(socket)
  })
  await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve))
  const address = service.address()
  port = typeof address === 'object' && address !== null ? address.port : 0
})
afterAll(async () => {
  client.close()
  for (const socket of accepted) socket.destroy()
  service.close()
  await host[Symbol.asyncDispose]()
})
beforeEach(() => {
  leases = new GuestLeases(socketPath(), createTunnels(host.address))
  host.tunnels = 0
})
afterEach(() => leases.close())

const socketPath = () => host.address.replace('unix:', '')
const target = () => ({ capsuleId, port })

async function said(socket: Socket, text: string): Promise<string> {
  socket.write(text)
  return String(await new Promise((resolve) => socket.once('data', resolve)))
}

const failure = async (call: Promise<Socket>): Promise<string> =>
  await call.then(
    () => 'opened',
    (error: unknown) => (AppError.is(error) ? error.code : String(error)),
  )

describe('a connection straight to a guest of this machine', () => {
  it('needs no tunnel, ends in each direction by itself, and is use of the capsule', async () => {
    const sockets = await Promise.all([leases.open(target(), signal), leases.open(target(), signal)])
    const capsule = host.capsules.get(capsuleId)
    if (capsule === undefined) throw new Error('no capsule')
    capsule.lastActiveAtMs = 0
    for (const socket of sockets) {
      expect(await said(socket, 'there and back')).toBe('there and back')
      socket.end('the rest')
      let rest = ''
      for await (const chunk of socket) rest += chunk
      expect(rest).toBe('the rest')
    }
    expect(host.tunnels).toBe(0)
    await vi.waitFor(() => expect(capsule.lastActiveAtMs).toBeGreaterThan(0), 10_000)
  })

  it('breaks off with its guest, and leads to no other one', async () => {
    for (const end of [
      () => client.client.pauseCapsule({ capsuleId, reason: 'request' }),
      () => host.stop(),
      async () => leases.close(),
    ]) {
      const socket = await leases.open(target(), signal)
      expect(await said(socket, 'hello')).toBe('hello')
      const closed = new Promise((resolve) => socket.once('close', resolve))
      await end()
      await closed
      expect(socket.readableEnded).toBe(false)
      if (host.capsules.get(capsuleId)?.state === 'paused') {
        expect(await failure(leases.open(target(), signal))).toBe('invalid_state')
        await client.client.resumeCapsule({ capsuleId })
      }
      await host.stop()
      await host.start()
    }
  })

  it('is given to nobody when the guest ends before the host agent has said that it is the same', async () => {
    const capsule = host.capsules.get(capsuleId)
    if (capsule === undefined) throw new Error('no capsule')
    const held = leases.open(target(), signal)
    const before = accepted.length
    // The guest ends at the moment at which the connection is there.
    await new Promise<void>((resolve) => service.once('connection', () => resolve()))
    capsule.endUse(new AppError('invalid_state', 'as in a pause'))
    const socket = await held
    // What is given is a tunnel, which the host agent has made to the guest of now.
    expect([host.tunnels, accepted.length]).toEqual([1, before + 2])
    socket.destroy()
  })

  it('is a tunnel where nobody listens outside, to the guest agent, and with a host agent of before', async () => {
    expect(await failure(leases.open({ capsuleId, port: 1 }, signal))).toBe('port_closed')
    expect(await failure(leases.open({ capsuleId: `cl-${'1'.repeat(25)}`, port }, signal))).toBe('capsule_not_found')
    host.agentPort = port
    host.tunnels = 0
    const agent = await leases.open({ capsuleId, port: 49_983 }, signal)
    expect([await said(agent, 'hello'), host.tunnels]).toEqual(['hello', 1])
    agent.destroy()
    host.hasLeases = false
    leases.close()
    const old = new GuestLeases(socketPath(), createTunnels(host.address))
    const socket = await old.open(target(), signal)
    expect([await said(socket, 'hello'), host.tunnels]).toEqual(['hello', 2])
    socket.destroy()
    host.hasLeases = true
  })

  it('is not waited for by who has left', async () => {
    const left = new AbortController()
    const opening = failure(leases.open(target(), left.signal))
    left.abort(new AppError('timeout', 'left'))
    expect(await opening).toBe('timeout')
    const socket = await leases.open(target(), signal)
    expect(await said(socket, 'hello')).toBe('hello')
    socket.destroy()
  })

  it('is given up, with what was made of it, when the host agent does not say in time that the guest is the same', async () => {
    const path = join(await mkdtemp(join(tmpdir(), 'wrenn-mute-')), 'agent.sock')
    const switched = `HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: ${LEASE_PROTOCOL}\r\n\r\n127.0.0.1\n`
    const lines: Socket[] = []
    const mute = createServer((line) => void lines.push(line.on('error', () => {}).resume())).listen(path)
    mute.on('connection', (line) => line.write(switched))
    const waiting = new GuestLeases(path, createTunnels(`unix:${path}`))
    const late = new AbortController()
    const accept = new Promise<Socket>((resolve) => service.once('connection', resolve))
    const opening = failure(waiting.open(target(), late.signal))
    const ended = new Promise((resolve) => accept.then((socket) => socket.once('close', resolve)))
    await accept
    late.abort(new AppError('guest_unreachable', 'late'))
    expect(await opening).toBe('guest_unreachable')
    await ended
    waiting.close()
    for (const line of lines) line.destroy()
    mute.close()
    await rm(dirname(path), { recursive: true })
  })
})
