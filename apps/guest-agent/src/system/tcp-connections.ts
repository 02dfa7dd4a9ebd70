import { AppError } from '@wrenn/base'
import type { ConnectionPorts } from './guest-system.js'
import { DATA_ADDRESS, type KernelCalls, MAX_DATA_BYTES } from './kernel-calls.js'

const CLOSE = 3
const SOCKET = 41
const SENDTO = 44
const RECVFROM = 45
/** The kernel has answered when it has taken the question; where it has not, waiting would hold up every later call. */
const MSG_DONTWAIT = 0x40
const AF_NETLINK = 16
const SOCK_RAW_CLOEXEC = 0x80003
const NETLINK_SOCK_DIAG = 4

// linux/netlink.h, linux/sock_diag.h
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const SOCK_DIAG_BY_FAMILY = 20
const SOCK_DESTROY = 21
const NLM_F_REQUEST = 1
const NLM_F_ACK = 4
const NLM_F_DUMP = 0x300

const IPPROTO_TCP = 6
const AF_INET = 2
const AF_INET6 = 10
const HEADER_BYTES = 16
/** `inet_diag_req_v2`: family, protocol, two bytes, states, socket. */
const REQUEST_BYTES = HEADER_BYTES + 56
const REQUEST_SOCKET_AT = HEADER_BYTES + 8
/** `inet_diag_msg`: family and three bytes, then the socket. */
const MESSAGE_SOCKET_AT = HEADER_BYTES + 4
const SOCKET_BYTES = 48
/** The kernel fills at most so much at a time when it knows that it fits. */
const ANSWER_BYTES = 16 * 1024

/**
 * linux/tcp_states.h: established, receiving a first packet, and all half closed ones. Not those that still try to connect: the
 * next try leaves by the new network.
 */
const CONNECTED_STATES = [1, 3, 4, 5, 8, 9, 11].reduce((mask, state) => mask | (1 << state), 0)

const PER_BATCH = Math.floor(MAX_DATA_BYTES / REQUEST_BYTES)

interface Message {
  readonly type: number
  readonly bytes: Buffer
}

/** Ends TCP connections of this network namespace through the kernel's socket diagnosis, as `ss --kill` does (sock_diag(7)). */
export class TcpConnections {
  readonly #kernel: Pick<KernelCalls, 'make'>
  #socket: number | undefined
  #last: Promise<unknown> = Promise.resolve()

  constructor(kernel: Pick<KernelCalls, 'make'>) {
    this.#kernel = kernel
  }

  /**
   * Ends every connection with another machine but `kept`: its program gets ECONNABORTED instead of silence.
   * @returns how many there were
   */
  drop(kept: ConnectionPorts): Promise<number> {
    // One after the other: a host that repeats its call would else take the answers to the one before.
    const dropped = this.#last.then(() => this.#dropOrClose(kept))
    this.#last = dropped.catch(() => {}) // told to who asked
    return dropped
  }

  async #dropOrClose(kept: ConnectionPorts): Promise<number> {
    try {
      return await this.#drop(kept)
    } catch (error) {
      // Answers that nobody took would be taken for the next one's.
      const socket = this.#socket
      this.#socket = undefined
      if (socket !== undefined) await this.#kernel.make('closing', { number: CLOSE, args: [socket] })
      throw error
    }
  }

  async #drop(kept: ConnectionPorts): Promise<number> {
    const found: Buffer[] = []
    for (const family of [AF_INET, AF_INET6]) {
      for (const bytes of await this.#list(family)) if (isForeign(bytes) && !isBetween(bytes, kept)) found.push(bytes)
    }
    for (let first = 0; first < found.length; first += PER_BATCH) {
      await this.#destroy(found.slice(first, first + PER_BATCH))
    }
    return found.length
  }

  async #list(family: number): Promise<readonly Buffer[]> {
    const request = Buffer.alloc(REQUEST_BYTES)
    writeHeader(request, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP)
    request[HEADER_BYTES] = family
    request[HEADER_BYTES + 1] = IPPROTO_TCP
    request.writeUInt32LE(CONNECTED_STATES, HEADER_BYTES + 4)
    await this.#send(request)
    const found: Buffer[] = []
    for (;;) {
      for (const { type, bytes } of await this.#receive()) {
        if (type === NLMSG_DONE) return found
        if (type === NLMSG_ERROR) throw refused(bytes)
        found.push(bytes)
      }
    }
  }

  /** One that has ended by itself meanwhile is refused by the kernel, which is as good. */
  async #destroy(connections: readonly Buffer[]): Promise<void> {
    await this.#send(Buffer.concat(connections.map(destroyRequest)))
    for (let answers = 0; answers < connections.length; ) answers += (await this.#receive()).length
  }

  async #send(data: Buffer): Promise<void> {
    const args = [await this.#open(), DATA_ADDRESS, data.length, 0, 0, 0]
    await this.#kernel.make('asking the kernel for connections', { number: SENDTO, args, data })
  }

  async #receive(): Promise<readonly Message[]> {
    const args = [await this.#open(), DATA_ADDRESS, ANSWER_BYTES, MSG_DONTWAIT, 0, 0]
    const call = { number: RECVFROM, args, answerBytes: ANSWER_BYTES }
    const { result, data } = await this.#kernel.make('listing connections', call)
    return messagesIn(data.subarray(0, result))
  }

  async #open(): Promise<number> {
    const call = { number: SOCKET, args: [AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG] }
    this.#socket ??= (await this.#kernel.make('socket diagnosis', call)).result
    return this.#socket
  }
}

function writeHeader(message: Buffer, type: number, flags: number): void {
  message.writeUInt32LE(message.length, 0)
  message.writeUInt16LE(type, 4)
  message.writeUInt16LE(flags, 6)
}

function destroyRequest(connection: Buffer): Buffer {
  const request = Buffer.alloc(REQUEST_BYTES)
  writeHeader(request, SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK)
  request[HEADER_BYTES] = connection[HEADER_BYTES] ?? 0
  request[HEADER_BYTES + 1] = IPPROTO_TCP
  request.writeUInt32LE(CONNECTED_STATES, HEADER_BYTES + 4)
  connection.copy(request, REQUEST_SOCKET_AT, MESSAGE_SOCKET_AT, MESSAGE_SOCKET_AT + SOCKET_BYTES)
  return request
}

function messagesIn(bytes: Buffer): readonly Message[] {
  const messages: Message[] = []
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const length = bytes.readUInt32LE(at)
    if (length < HEADER_BYTES) break
    messages.push({ type: bytes.readUInt16LE(at + 4), bytes: bytes.subarray(at, at + length) })
    at += (length + 3) & ~3
  }
  return messages
}

function refused(message: Buffer): AppError {
  return new AppError(
    'guest_error',
    `The kernel does not list connections (error ${message.readInt32LE(HEADER_BYTES)}).`,
  )
}

/** In `inet_diag_sockid`: ports in network order, then both addresses in 16 bytes each. */
function portsOf(message: Buffer): ConnectionPorts {
  return {
    localPort: message.readUInt16BE(MESSAGE_SOCKET_AT),
    remotePort: message.readUInt16BE(MESSAGE_SOCKET_AT + 2),
  }
}

function isBetween(message: Buffer, kept: ConnectionPorts): boolean {
  const { localPort, remotePort } = portsOf(message)
  return localPort === kept.localPort && remotePort === kept.remotePort
}

/** With another machine: neither to a loopback address nor to the guest's own. */
function isForeign(message: Buffer): boolean {
  const source = message.subarray(MESSAGE_SOCKET_AT + 4, MESSAGE_SOCKET_AT + 20)
  const target = message.subarray(MESSAGE_SOCKET_AT + 20, MESSAGE_SOCKET_AT + 36)
  if (source.equals(target)) return false
  const isVersion4 = message[HEADER_BYTES] === AF_INET
  const isMapped = target.readBigUInt64BE(0) === 0n && target.readUInt32BE(8) === 0xffff
  if (isVersion4) return target[0] !== 127
  if (isMapped) return target[12] !== 127
  return !(target.readBigUInt64BE(0) === 0n && target.readBigUInt64BE(8) === 1n)
}
