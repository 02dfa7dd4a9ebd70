import type { Socket } from 'node:net'
import { FrameReader, frame } from './frames.js'
import { MAXIMUM_QUERY_BYTES } from './message.js'

/** 1,000 look-ups at once whose answers do not fit into UDP are 1,000 connections. */
const MAXIMUM_CONNECTIONS = 4096
const MAXIMUM_CONNECTIONS_PER_CLIENT = 1024
const IDLE_CONNECTION_MS = 10_000
/** Questions of one connection without an answer, after which it is not read. */
const MAXIMUM_UNANSWERED = 128
/** Answers that a guest does not fetch. */
const MAXIMUM_UNSENT_BYTES = 2 ** 18

/** Takes one message of a client. False when it cannot be asked: its connection is closed. */
export type OnMessage = (message: Buffer, client: string, socket: number, send: (answer: Buffer) => void) => boolean

interface Connection {
  readonly socket: Socket
  readonly client: string
  unanswered: number
}

/** The guests' connections. When there are too many, the client with the most loses the one that has been idle, or open, longest. */
export class TcpFront {
  readonly #onMessage: OnMessage
  /** Oldest use first. */
  readonly #connections = new Map<string, Set<Connection>>()
  #count = 0
  #made = 0

  constructor(onMessage: OnMessage) {
    this.#onMessage = onMessage
  }

  accept(socket: Socket): void {
    const client = socket.remoteAddress ?? ''
    const mine = this.#connections.get(client) ?? new Set()
    if (mine.size >= MAXIMUM_CONNECTIONS_PER_CLIENT) this.#closeOneOf(mine)
    else if (this.#count >= MAXIMUM_CONNECTIONS) this.#closeOneOf(this.#largest())
    this.#connections.set(client, mine)
    this.#serve({ socket, client, unanswered: 0 }, mine)
  }

  close(): void {
    for (const connections of this.#connections.values()) {
      for (const { socket } of connections) socket.destroy()
    }
  }

  #serve(connection: Connection, mine: Set<Connection>): void {
    const { socket } = connection
    const number = ++this.#made
    const frames = new FrameReader(MAXIMUM_QUERY_BYTES)
    mine.add(connection)
    this.#count += 1
    socket.setTimeout(IDLE_CONNECTION_MS, () => socket.destroy())
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#forget(connection))
    socket.on('data', (chunk) => {
      const messages = frames.push(chunk)
      if (frames.oversized) socket.destroy()
      for (const message of messages) this.#take(connection, message, number)
    })
  }

  #take(connection: Connection, message: Buffer, number: number): void {
    const { socket, client } = connection
    if (socket.destroyed) return
    connection.unanswered += 1
    this.#touch(connection)
    if (connection.unanswered >= MAXIMUM_UNANSWERED) socket.pause()
    // A copy: a part of the chunk would keep all 64 KiB of it while the question waits.
    const taken = this.#onMessage(Buffer.from(message), client, number, (answer) => this.#send(connection, answer))
    if (!taken) socket.destroy()
  }

  #send(connection: Connection, answer: Buffer): void {
    const { socket } = connection
    connection.unanswered -= 1
    if (socket.destroyed) return
    socket.write(frame(answer))
    if (socket.writableLength > MAXIMUM_UNSENT_BYTES) socket.destroy()
    else if (connection.unanswered < MAXIMUM_UNANSWERED) socket.resume()
  }

  #touch(connection: Connection): void {
    const mine = this.#connections.get(connection.client)
    if (mine?.delete(connection)) mine.add(connection)
  }

  #forget(connection: Connection): void {
    const mine = this.#connections.get(connection.client)
    if (!mine?.delete(connection)) return
    this.#count -= 1
    if (mine.size === 0) this.#connections.delete(connection.client)
  }

  #largest(): ReadonlySet<Connection> {
    let largest: ReadonlySet<Connection> = new Set()
    for (const connections of this.#connections.values()) {
      if (connections.size > largest.size) largest = connections
    }
    return largest
  }

  #closeOneOf(connections: ReadonlySet<Connection>): void {
    const [oldest] = connections
    const victim = [...connections].find(({ unanswered }) => unanswered === 0) ?? oldest
    if (victim === undefined) return
    this.#forget(victim)
    victim.socket.destroy()
  }
}
