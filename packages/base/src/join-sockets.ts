import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'

/**
 * Copies both ways between two sockets that were opened with `allowHalfOpen`. Each direction ends by itself, at the pace of its
 * reader; one that breaks off instead breaks off the other side. What was said in good order before is still delivered. Owns
 * both sockets from then on.
 * @param onBytes is called whenever something passes
 */
export function joinSockets(one: Socket, other: Socket, onBytes?: () => void): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    if (endTogether(from, to)) pass(from, to, onBytes)
  }
}

interface CarryOptions {
  /** All bytes go through it. When it fails, whoever made it breaks off both sides. */
  readonly through?: Duplex
}

/** One direction of {@link joinSockets}. */
export function carry(from: Socket, to: Socket, { through }: CarryOptions = {}): void {
  if (!endTogether(from, to)) return
  const source = through === undefined ? from : from.pipe(through)
  source.pipe(to)
}

/** What `pipe` does, for what it keeps for streams of other kinds: of two idle sockets that is most. */
function pass(from: Socket, to: Socket, onBytes: (() => void) | undefined): void {
  from.on('data', (bytes: Buffer) => {
    onBytes?.()
    if (!to.destroyed && !to.write(bytes)) from.pause()
  })
  to.on('drain', () => from.resume())
  if (from.readableEnded) to.end()
  else from.once('end', () => to.end())
  from.resume()
}

/** @returns whether there is anything to carry */
function endTogether(from: Socket, to: Socket): boolean {
  if (from.destroyed) {
    breakOff(to)
    return false
  }
  from.on('error', ignore) // `close` follows
  from.once('close', () => {
    if (!from.readableEnded) {
      breakOff(to)
      return
    }
    // Its end was passed on; nobody is there for what the other side still says.
    to.resume()
    if (to.writableFinished) to.destroy()
    else to.once('finish', () => to.destroy())
  })
  return true
}

/** Ends a socket so that its other end knows it was no orderly end, where the transport has a way to say that. */
export function breakOff(socket: Socket): void {
  socket.on('error', ignore)
  if (socket.destroyed) return
  const isTcp = socket.remoteFamily !== undefined && !(socket instanceof TLSSocket)
  if (isTcp) socket.resetAndDestroy()
  else socket.destroy()
}

function ignore(): void {}
