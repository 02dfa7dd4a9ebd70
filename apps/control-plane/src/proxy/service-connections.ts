import type { Socket } from 'node:net'
import type { TunnelTarget } from '@wrenn/protocol'
import { ServiceConnection } from './service-connection.js'

/** Shorter than any service keeps its side: 2 s is the shortest that is usual. */
export const IDLE_CONNECTION_MS = 1_500
/** Of each port. */
export const IDLE_CONNECTIONS = 64
const LOOK_EVERY_MS = 250

type Connect = (target: TunnelTarget, left: AbortSignal) => Promise<Socket>

/** Keeps connections to ports of capsules for the next request there. They end with the guest, so they lead to no other. */
export class ServiceConnections {
  readonly #connect: Connect
  readonly #all = new Set<ServiceConnection>()
  /** By port, the one that was used last at the end. */
  readonly #free = new Map<string, ServiceConnection[]>()
  /** One for all of them. */
  #timer: NodeJS.Timeout | undefined

  constructor(connect: Connect) {
    this.#connect = connect
  }

  /** One that waits, if any does. */
  take(target: TunnelTarget): ServiceConnection | undefined {
    const free = this.#free.get(keyOf(target))
    for (let last = free?.pop(); last !== undefined; last = free?.pop()) if (last.isOpen) return last
    return undefined
  }

  /** A new one. @throws AppError as the connecting does */
  async open(target: TunnelTarget, left: AbortSignal): Promise<ServiceConnection> {
    const connection = new ServiceConnection(keyOf(target), await this.#connect(target, left), this)
    this.#all.add(connection)
    return connection
  }

  onFree(connection: ServiceConnection): void {
    const free = this.#free.get(connection.key) ?? []
    if (free.length >= IDLE_CONNECTIONS) {
      connection.destroy()
      return
    }
    if (free.length === 0) this.#free.set(connection.key, free)
    connection.freeSinceMs = performance.now()
    free.push(connection)
    this.#timer ??= setInterval(this.#endIdle, LOOK_EVERY_MS).unref()
  }

  onGone(connection: ServiceConnection): void {
    this.#all.delete(connection)
    const free = this.#free.get(connection.key)
    const at = free?.indexOf(connection) ?? -1
    if (at >= 0) free?.splice(at, 1)
  }

  close(): void {
    clearInterval(this.#timer)
    for (const connection of this.#all) connection.destroy()
  }

  readonly #endIdle = (): void => {
    const since = performance.now() - IDLE_CONNECTION_MS
    for (const [key, free] of this.#free) {
      const kept = free.findIndex(({ freeSinceMs }) => freeSinceMs > since)
      for (const idle of free.slice(0, kept < 0 ? free.length : kept)) idle.destroy()
      if (free.length === 0) this.#free.delete(key)
    }
    if (this.#free.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

function keyOf({ capsuleId, port }: TunnelTarget): string {
  return `${capsuleId}:${port}`
}
