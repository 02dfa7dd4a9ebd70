import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'

/** A connection on which a request was sent and the beginning of an answer has come, to be read by Node, which sends the request once more. */
export function replayed(socket: Socket, seen: Buffer): Duplex {
  const replay = new Duplex({
    read: () => void socket.resume(),
    write: (_chunk, _encoding, done) => done(), // the service has it
    final: (done) => {
      done()
      replay.destroy()
    },
    destroy: (error, done) => {
      socket.destroy()
      done(error)
    },
  })
  const pass = (bytes: Buffer): void => {
    if (!replay.push(bytes)) socket.pause()
  }
  pass(seen)
  socket.on('data', pass)
  socket.once('end', () => replay.push(null))
  socket.once('close', () => {
    if (!socket.readableEnded) replay.destroy()
  })
  return replay
}
