import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { UndoStack, waitFor } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import WebSocket, { WebSocketServer } from 'ws'
import { Channel, type ChannelOptions } from './channel.js'

const PIECE = Buffer.alloc(256 * 1024, 1)
const PIECES = 40

let undo: UndoStack

beforeEach(() => {
  undo = new UndoStack()
})
afterEach(() => undo[Symbol.asyncDispose]())

async function connect(options: ChannelOptions = {}): Promise<{ channel: Channel; peer: WebSocket }> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await undo.defer(() => void server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // it listens on a port, not on a path
  const accepted = new Promise<Channel>((resolve) => {
    server.once('connection', (socket) => resolve(new Channel(socket, options)))
  })
  const peer = new WebSocket(`ws://127.0.0.1:${port}`)
  peer.on('error', () => {})
  await undo.defer(() => peer.terminate())
  await once(peer, 'open')
  return { channel: await accepted, peer }
}

describe('Channel', () => {
  it('reads on after the messages that held it back were all taken together', async () => {
    const { channel, peer } = await connect()
    for (let sent = 0; sent < PIECES; sent += 1) peer.send(PIECE)
    let size = 0
    while (size < PIECES * PIECE.length) {
      await untilQueued(channel)
      for (let more = channel.takeIf(() => true); more !== undefined; more = channel.takeIf(() => true)) {
        size += more.data.length
      }
    }
    expect(size).toBe(PIECES * PIECE.length)
  })

  it('keeps a peer whose pongs wait behind messages that nobody takes', async () => {
    let pings = 0
    const { channel, peer } = await connect({
      pingEveryMs: 200, // on a busy machine the first message takes more than a few milliseconds
      onPing: () => {
        pings += 1
      },
    })
    for (let sent = 0; sent < PIECES; sent += 1) peer.send(PIECE)
    await waitFor(async () => pings > 10 || undefined, { timeoutMs: 20_000, what: 'ten pings' })
    expect(peer.bufferedAmount).toBeGreaterThan(0)
    let size = 0
    while (size < PIECES * PIECE.length) size += (await channel.next())?.data.length ?? Number.NaN
    expect(size).toBe(PIECES * PIECE.length)
  })

  it('ends when the peer answers no ping', async () => {
    const { channel, peer } = await connect({ pingEveryMs: 20 })
    peer.pause()
    await waitFor(async () => channel.signal.aborted || undefined, { timeoutMs: 20_000, what: 'the channel to end' })
    expect(await channel.next()).toBeUndefined()
  })

  it('takes nothing more from a peer that it cuts off, and does not wait until that one reads', async () => {
    const { channel, peer } = await connect()
    const closed = once(peer, 'close')
    peer.send('waits to be taken')
    await untilQueued(channel)
    peer.pause()
    for (let sent = 0; sent < PIECES; sent += 1) void channel.send(PIECE)
    channel.cutOff({ type: 'error' }, 1008, 'unauthorized')
    expect(channel.signal.aborted).toBe(true)
    expect(await channel.next()).toBeUndefined()
    peer.send('comes too late')
    peer.resume()
    await closed
    expect(await channel.next()).toBeUndefined()
  })

  it('tells a peer that reads why it is cut off', async () => {
    const { channel, peer } = await connect()
    const told = once(peer, 'message')
    const closed = once(peer, 'close')
    channel.cutOff({ type: 'error' }, 1008, 'unauthorized')
    expect(String((await told)[0])).toBe('{"type":"error"}')
    expect((await closed)[0]).toBe(1008)
  })
})

/** Waits until a message is there, without taking it. */
async function untilQueued(channel: Channel): Promise<void> {
  let seen = false
  const look = (): boolean => {
    seen = true
    return false
  }
  await waitFor(
    async () => {
      channel.takeIf(look)
      return seen || undefined
    },
    { timeoutMs: 5_000, what: 'a message' },
  )
}
