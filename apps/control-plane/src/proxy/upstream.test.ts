import { connect, createServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { Db } from '../store/database.js'
import type { CapsuleRow } from '../store/schema.js'
import type { Routes } from './routes.js'
import { Upstream } from './upstream.js'

const AT_ONCE = 32

describe('connections to a port', () => {
  it('wake no capsule for who has left before its turn', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const held: (() => void)[] = []
    let woken = 0
    const upstream = new Upstream({
      db: {} as Db, // asked only when something fails
      routes: { get: async (id: string) => ({ id, teamId: 'team' }) } as unknown as Routes, // its other fields are not looked at
      wake: {
        use: async (_ref, work) => {
          woken++
          return await work({} as CapsuleRow) // which a dial does not look at
        },
      },
      openTunnel: async () => {
        await new Promise<void>((resolve) => held.push(resolve))
        return connect(port, '127.0.0.1').on('error', () => {})
      },
    })
    const target = { capsuleId: 'cl-a', port: 80 }
    const client = new AbortController()
    const served = Array.from({ length: AT_ONCE }, () => upstream.connect(target))
    const gone = upstream.connect(target, client.signal).then(
      () => 'served',
      () => 'left',
    )
    await expect.poll(() => held.length).toBe(AT_ONCE)
    client.abort()
    expect(await gone).toBe('left')
    for (const release of held.splice(0)) release()
    for (const socket of await Promise.all(served)) socket.destroy()
    expect(woken).toBe(AT_ONCE)
    await new Promise((resolve) => server.close(resolve))
  })
})
