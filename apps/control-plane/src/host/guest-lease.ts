import type { Socket } from 'node:net'
import { breakOff } from '@wrenn/base'

const SIGN = Buffer.from('.')

/**
 * The host agent's word that the guest at an address is that of a capsule, for as long as its line is open. Connections that were made meanwhile end
 * with it. Owns the line.
 */
export class GuestLease {
  readonly address: string
  /** Where nobody took a connection in time, as behind a firewall of the guest's: not to be waited for again. */
  readonly slowPorts = new Set<number>()
  readonly #line: Socket
  readonly #onEnd: () => void
  /** Of signs that are on their way, in turn. */
  readonly #waiting: ((isSame: boolean) => void)[] = []
  readonly #connections = new Set<Socket>()
  /** On connections that have ended. */
  #endedBytes = 0
  #seenBytes = 0
  #hasEnded = false
  /** When something passed last; milliseconds as of `performance.now()`. */
  #usedAtMs = performance.now()

  constructor(address: string, line: Socket, onEnd: () => void) {
    this.address = address
    this.#line = line
    this.#onEnd = onEnd
    line.on('data', ({ length }: Buffer) => {
      for (const isSame of this.#waiting.splice(0, length)) isSame(true)
    })
    line.once('end', () => line.destroy())
    line.once('close', () => this.end())
    line.resume()
    if (line.destroyed) this.end()
  }

  /**
   * Asks the host agent, which takes it for use of the capsule: a connection made before to the address leads to the guest only if this is so, for an
   * address that is given to another guest is so after the line has ended.
   */
  async isSame(): Promise<boolean> {
    if (this.#hasEnded) return false
    this.#line.write(SIGN)
    return await new Promise((resolve) => this.#waiting.push(resolve))
  }

  /** A connection, also one that is being made, ends with the lease. */
  bind(socket: Socket): void {
    this.#connections.add(socket)
    socket.once('close', () => {
      this.#connections.delete(socket)
      this.#endedBytes += bytesOf(socket)
    })
    if (this.#hasEnded) breakOff(socket)
  }

  /** Tells the host agent of use, if anything has passed since the last look, and ends when nobody has used it for `idleMs`. */
  look(idleMs: number): void {
    let bytes = this.#endedBytes
    for (const socket of this.#connections) bytes += bytesOf(socket)
    const now = performance.now()
    if (bytes !== this.#seenBytes) {
      this.#seenBytes = bytes
      this.#usedAtMs = now
      void this.isSame()
    } else if (this.#connections.size === 0 && now - this.#usedAtMs > idleMs) this.end()
  }

  end(): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#line.destroy()
    for (const socket of this.#connections) breakOff(socket)
    for (const isSame of this.#waiting.splice(0)) isSame(false)
    this.#onEnd()
  }
}

function bytesOf({ bytesRead, bytesWritten }: Socket): number {
  return bytesRead + bytesWritten
}
