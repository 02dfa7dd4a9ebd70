import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Door } from './door.js'
import { RegistryRules } from './rules.js'

const LOOPBACK = { base: 0x7f000001, bits: 32 }

describe('the door of a fetch', () => {
  let folder: string
  let registry: Server
  let port: number
  let says: (socket: Socket) => void = (socket) => socket.end('hello')

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'wrenn-door-'))
    registry = createServer((socket) => {
      socket.on('error', () => {})
      says(socket)
    })
    registry.listen(0, '127.0.0.1')
    await once(registry, 'listening')
    port = (registry.address() as AddressInfo).port
  })
  afterAll(async () => {
    registry.close()
    await rm(folder, { recursive: true })
  })

  const open = async (maxBytes: number, allowedPort: number) => {
    const rules = new RegistryRules({ registries: [], allowed: [{ network: LOOPBACK, port: allowedPort }], plain: [] })
    return await Door.open(join(folder, 'door'), { rules, maxBytes })
  }
  /** What one is told who asks for a connection, to its end. */
  const ask = async (target: string): Promise<string> => {
    const socket = connect({ path: join(folder, 'door') })
    socket.write(`CONNECT ${target} HTTP/1.1\r\nhost: ${target}\r\n\r\n`)
    return await text(socket).catch(() => 'broken off')
  }

  it('lets one through to where the rules allow it, and counts', async () => {
    await using door = await open(100, port)
    expect(await ask(`127.0.0.1:${port}`)).toMatch(/^HTTP\/1\.1 200 [\s\S]*hello$/)
    expect(door).toMatchObject({ received: 5, problem: undefined })
  })

  it('stays shut to other ports and what is no address', async () => {
    for (const target of [`127.0.0.1:${port}`, '[::1]:443', '127.0.0.1:0']) {
      await using door = await open(100, port + 1)
      expect(await ask(target)).toMatch(/^HTTP\/1\.1 403 /)
      expect(door.problem).toMatchObject({ code: 'registry_refused' })
    }
  })

  it('ends what sends more than it may', async () => {
    says = (socket) => socket.write(Buffer.alloc(1_000_000))
    await using door = await open(1_000, port)
    await ask(`127.0.0.1:${port}`)
    expect(door.problem).toMatchObject({ code: 'image_not_usable', message: expect.stringContaining('sends more') })
  })
})
