import type { Socket } from 'node:net'

interface Closing {
  once(event: 'close', listener: () => void): unknown
}

/** The agent's open connections, and how many answers or tunnels are under way on them. */
export class Connections {
  readonly #sockets = new Set<Socket>()
  #busy = 0

  add(socket: Socket): void {
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
  }

  /** Counts `work` until it is closed. */
  began(work: Closing): void {
    this.#busy++
    work.once('close', () => {
      this.#busy--
    })
  }

  /** Requests and tunnels that are under way. */
  get busy(): number {
    return this.#busy
  }

  /**
   * Resets every connection but one. After a restore the other ends of the rest belong to a host that has forgotten them: an
   * orderly close would leave them waiting for its answer.
   */
  resetOthers(kept: Socket): void {
    for (const socket of this.#sockets) if (socket !== kept) socket.resetAndDestroy()
  }
}
