import { AppError } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import type { KernelAnswer, KernelCall } from './kernel-calls.js'
import { TcpConnections } from './tcp-connections.js'

const SOCKET = 41
const SENDTO = 44
const RECVFROM = 45
const MSG_DONTWAIT = 0x40
const DONE = 3

/** A socket diagnosis without connections: each question is answered by one "done", which may be read once. */
class EmptyDiagnosis {
  readonly calls: number[] = []
  #answers = 0

  async make(what: string, { number, args }: KernelCall): Promise<KernelAnswer> {
    this.calls.push(number)
    await new Promise((resolve) => setImmediate(resolve))
    if (number === SOCKET) return { result: 7, data: Buffer.alloc(0) }
    if (number === SENDTO) {
      this.#answers += 1
      return { result: 1, data: Buffer.alloc(0) }
    }
    if (number !== RECVFROM) return { result: 0, data: Buffer.alloc(0) }
    expect(args[3]).toBe(MSG_DONTWAIT)
    if (this.#answers === 0) throw new AppError('guest_error', `${what}: EAGAIN`)
    const data = Buffer.alloc(16)
    // What waits is read together.
    const messages = Buffer.concat(Array.from({ length: this.#answers }, () => Buffer.from(data)))
    for (let at = 0; at < messages.length; at += 16) {
      messages.writeUInt32LE(16, at)
      messages.writeUInt16LE(DONE, at + 4)
    }
    this.#answers = 0
    return { result: messages.length, data: messages }
  }
}

describe('ending the connections of a resumed guest', () => {
  it('is done once after the other, however often it is asked for, and waits for no answer that does not come', async () => {
    const kernel = new EmptyDiagnosis()
    const connections = new TcpConnections(kernel)
    const kept = { localPort: 1, remotePort: 2 }
    expect(await Promise.all([connections.drop(kept), connections.drop(kept), connections.drop(kept)])).toEqual([
      0, 0, 0,
    ])
    expect(kernel.calls.filter((number) => number === SOCKET)).toHaveLength(1)
    const asked = kernel.calls.filter((number) => number !== SOCKET)
    expect(asked).toEqual(Array.from({ length: 6 }, () => [SENDTO, RECVFROM]).flat())
  })
})
