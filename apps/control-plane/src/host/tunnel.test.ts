import { createServer, type Server, type Socket } from 'node:net'
import { AppError } from '@wrenn/base'
import { FakeHost } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createHostClient } from './transport.js'
import { createTunnels, type OpenTunnel } from './tunnel.js'

const capsuleId = `cl-${'0'.repeat(25)}`
const { signal } = new AbortController()

let host: FakeHost
let link: ReturnType<typeof createHostClient>
let open: OpenTunnel

beforeAll(async () => {
  host = await FakeHost.start()
  link = createHostClient(host.address)
  open = createTunnels(host.address)
  await link.client.createCapsule({ capsuleId, template: 'minimal', vcpus: 1, memoryMib: 64 })
})
afterAll(async () => {
  link.close()
  await host[Symbol.asyncDispose]()
})

async function serve(onSocket: (socket: Socket) => void): Promise<AsyncDisposable & { readonly port: number }> {
  const service: Server = createServer({ allowHalfOpen: true }, onSocket)
  await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve))
  const address = service.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return { port, [Symbol.asyncDispose]: () => new Promise((resolve) => service.close(() => resolve())) }
}

const failure = async (call: Promise<unknown>): Promise<string> =>
  await call.then(
    () => 'opened',
    (error: unknown) => (AppError.is(error) ? error.code : String(error)),
  )

describe('a tunnel from the control plane', () => {
  it('carries large bytes both ways at once, and each direction ends by itself', async () => {
    const size = 32 * 1024 * 1024
    await using service = await serve((socket) => {
      let got = 0
      socket.on('data', (chunk) => {
        got += chunk.length
      })
      socket.write(Buffer.alloc(size))
      socket.once('end', () => socket.end(`got ${got}`))
    })
    const socket = await open({ capsuleId, port: service.port }, signal)
    socket.end(Buffer.alloc(size))
    let length = 0
    let tail = ''
    for await (const chunk of socket) {
      length += chunk.length
      tail = chunk.subarray(-20).toString('latin1')
    }
    expect(length).toBe(size + `got ${size}`.length)
    expect(tail).toMatch(new RegExp(`got ${size}$`))
  })

  it('says why there is none', async () => {
    const closed = await serve(() => {})
    await closed[Symbol.asyncDispose]()
    expect(await failure(open({ capsuleId, port: closed.port }, signal))).toBe('port_closed')
    expect(await failure(open({ capsuleId: `cl-${'1'.repeat(25)}`, port: 80 }, signal))).toBe('capsule_not_found')
    await link.client.pauseCapsule({ capsuleId, reason: 'request' })
    expect(await failure(open({ capsuleId, port: closed.port }, signal))).toBe('invalid_state')
    await link.client.resumeCapsule({ capsuleId })
    const away = createTunnels('unix:/nowhere/agent.sock')
    expect(await failure(away({ capsuleId, port: 80 }, signal))).toBe('host_unavailable')
    expect(() => createTunnels('ftp://nowhere')).toThrow('WRENN_HOST_AGENT_ADDRESS')
  })

  it('ends with its guest and with its host agent', async () => {
    await using service = await serve((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .once('end', () => socket.end()),
    )
    for (const end of [
      () => host.stop().then(() => host.start()),
      () => link.client.pauseCapsule({ capsuleId, reason: 'request' }),
    ]) {
      const socket = await open({ capsuleId, port: service.port }, signal)
      socket.on('error', () => {}).resume()
      const ended = new Promise((resolve) => socket.once('end', resolve))
      await end()
      await ended
      socket.destroy()
    }
  })
})
