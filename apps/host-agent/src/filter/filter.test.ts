import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openTcp } from './connection.js'
import { Filter } from './filter.js'
import { NameResolver } from './resolver.js'

const GUEST = '127.0.0.1'
const policy = { internet: false, allow: ['good.example'], deny: ['bad.example'] }
const head = (host: string): string => `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`

let site: Server
let front: Server
let filter: Filter
const failures: unknown[] = []
const atSite: Socket[] = []
const portOf = (server: Server): number => {
  const address = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}
const listen = async (server: Server): Promise<Server> => {
  server.listen(0, GUEST)
  await once(server, 'listening')
  return server
}

beforeEach(async () => {
  failures.length = 0
  atSite.length = 0
  site = await listen(
    createServer({ allowHalfOpen: true }, (socket) => {
      atSite.push(socket)
      socket.on('error', () => {})
      socket.pipe(socket)
    }),
  )
  filter = new Filter({
    resolver: new NameResolver(async () => [{ address: '9.9.9.9', ttl: 60 }]),
    version: 'of a test',
    limits: { all: 4, perSource: 3 },
    open: async (address) => (address === '9.9.9.9' ? await openTcp(GUEST, portOf(site)) : undefined),
    onFailure: (error) => failures.push(error),
  })
  front = await listen(createServer({ allowHalfOpen: true }, (socket) => filter.accept(socket)))
  filter.answer({ op: 'set', source: GUEST, policy })
})
afterEach(async () => {
  filter.answer({ op: 'forget', source: GUEST })
  for (const socket of atSite) socket.destroy()
  for (const server of [site, front]) await new Promise((resolve) => server.close(resolve))
  expect(failures).toEqual([])
})

function guest(text: string): Socket {
  const socket = connect({ port: portOf(front), host: GUEST, allowHalfOpen: true })
  socket.write(text)
  return socket
}
const heard = async (socket: Socket): Promise<string> => String((await once(socket, 'data'))[0])
/** How a connection ends, from a guest’s side. */
const endOf = async (socket: Socket): Promise<unknown> => {
  socket.resume()
  return await new Promise((resolve) => {
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code))
    socket.once('end', () => resolve('end'))
  })
}
const refused = () => filter.answer({ op: 'refused', source: GUEST }).refused ?? []

describe('the egress filter', () => {
  it('joins a connection with the site of its name, each direction with an end of its own', async () => {
    const socket = guest(head('good.example'))
    expect(await heard(socket)).toBe(head('good.example'))
    socket.end(head('good.example'))
    expect(await heard(socket)).toBe(head('good.example'))
    expect(await endOf(socket)).toBe('end')
    await expect.poll(() => filter.connections).toBe(0)
  })

  it('passes a reset on, from either side', async () => {
    const socket = guest(head('good.example'))
    await heard(socket)
    const atTheSite = atSite.at(0)
    const ended = new Promise((resolve) => atTheSite?.once('close', resolve))
    socket.resetAndDestroy()
    await ended
    const other = guest(head('good.example'))
    await heard(other)
    const end = endOf(other)
    atSite.at(1)?.resetAndDestroy()
    expect(await end).toBe('ECONNRESET')
  })

  it('refuses who has no policy, and notes nothing of it', async () => {
    filter.answer({ op: 'forget', source: GUEST })
    expect(await endOf(guest(head('good.example')))).toBe('ECONNRESET')
    filter.answer({ op: 'set', source: GUEST, policy })
    expect(refused()).toEqual([])
  })

  it('forgets with a source all that it has and had', async () => {
    const socket = guest(head('good.example'))
    await heard(socket)
    expect(await endOf(guest(head('bad.example')))).toBe('ECONNRESET')
    expect(refused()).toMatchObject([{ name: 'bad.example', reason: 'denied', rule: 'bad.example', count: 1 }])
    const waiting = guest('GET /')
    await expect.poll(() => filter.connections).toBe(2)
    const ends = Promise.all([endOf(socket), endOf(waiting)])
    filter.answer({ op: 'keep', sources: ['10.0.0.1'] })
    expect(await ends).toEqual(['ECONNRESET', 'ECONNRESET'])
    await expect.poll(() => filter.connections).toBe(0)
    await turn()
    expect(refused()).toEqual([])
  })

  it('has no more connections of one source than it may, and says so', async () => {
    const sockets = [guest('GET /'), guest('GET /'), guest('GET /')]
    await expect.poll(() => filter.connections).toBe(3)
    expect(await endOf(guest(head('good.example')))).toBe('ECONNRESET')
    expect(refused()).toMatchObject([{ reason: 'too_many', count: 1 }])
    for (const socket of sockets) socket.destroy()
    await expect.poll(() => filter.connections).toBe(0)
  })

  it('looks at each request of a connection by the policy of that moment', async () => {
    const socket = guest(head('good.example'))
    await heard(socket)
    filter.answer({ op: 'set', source: GUEST, policy: { ...policy, allow: ['good.example', 'new.example'] } })
    socket.write(head('new.example'))
    expect(await heard(socket)).toBe(head('new.example'))
    const end = endOf(socket)
    filter.answer({ op: 'set', source: GUEST, policy })
    // What it was last for is allowed no more.
    expect(await end).toBe('ECONNRESET')
  })

  describe('of a source that learns', () => {
    const learning = { ...policy, learn: true }
    const learned = () => filter.answer({ op: 'learned', source: GUEST }).learned
    const port = () => portOf(front)

    it('notes each name that it lets through, and forgets it when the learning ends', async () => {
      filter.answer({ op: 'set', source: GUEST, policy: { ...learning, allow: ['good.example', 'new.example'] } })
      for (const name of ['good.example', 'good.example']) {
        const socket = guest(head(name))
        await heard(socket)
        socket.write(head('new.example'))
        await heard(socket)
        socket.destroy()
      }
      expect(await endOf(guest(head('bad.example')))).toBe('ECONNRESET')
      const named = { protocol: 'tcp', namedBy: 'connection', address: '9.9.9.9', port: port(), count: 2 }
      expect(learned()).toEqual({
        isComplete: true,
        destinations: [
          { ...named, name: 'good.example' },
          { ...named, name: 'new.example' },
        ],
      })
      filter.answer({ op: 'set', source: GUEST, policy })
      expect(learned()).toEqual({ isComplete: true, destinations: [] })
    })

    it('notes nothing of one that does not', async () => {
      const socket = guest(head('good.example'))
      await heard(socket)
      expect(learned()?.destinations).toEqual([])
      socket.destroy()
    })
  })

  it('keeps no policy that cannot be kept', () => {
    expect(() => filter.answer({ op: 'set', source: GUEST, policy: { ...policy, allow: ['*'] } })).toThrow('"*"')
    expect(filter.answer({ op: 'hello' })).toEqual({ version: 'of a test' })
  })
})
