import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { connect, isIPv6 } from 'node:net'
import { FrameReader, frame } from './frames.js'
import { isAnswerTo, type Query, withId } from './message.js'

/** A name server of the host; an IPv6 address may carry a zone (`fe80::1%eth0`). */
export interface Server {
  readonly address: string
  readonly port: number
}

/**
 * Asks one server once. `onEnd` is called once, with the answer under the client's id, or without one when the server cannot be
 * reached; never when it stays silent. Returns how to give up, after which `onEnd` is not called any more.
 */
export type Exchange = (
  message: Buffer,
  query: Query,
  server: Server,
  onEnd: (answer: Buffer | undefined) => void,
) => () => void

/** A socket per question: its random port and id are what makes an answer hard to forge. */
export const exchangeUdp: Exchange = (message, query, { address, port }, onEnd) => {
  const id = randomInt(0x10000)
  const socket = createSocket(isIPv6(address.split('%')[0] ?? '') ? 'udp6' : 'udp4')
  const giveUp = (): void => {
    socket.removeAllListeners()
    socket.on('error', () => {})
    socket.close()
  }
  const finish = (answer: Buffer | undefined): void => {
    giveUp()
    onEnd(answer)
  }
  // "Connection refused" arrives here: no need to wait for a timeout.
  socket.on('error', () => finish(undefined))
  socket.on('message', (answer) => {
    if (isAnswerTo(answer, query, id)) finish(withId(answer, query.id))
  })
  socket.on('connect', () => socket.send(withId(message, id)))
  socket.connect(port, address)
  return giveUp
}

/**
 * A connection per question, as guests open one for an answer that was too long for UDP. A server that closes it without an
 * answer counts as not reachable.
 */
export const exchangeTcp: Exchange = (message, query, { address, port }, onEnd) => {
  const id = randomInt(0x10000)
  const socket = connect(port, address)
  const frames = new FrameReader()
  const giveUp = (): void => {
    socket.removeAllListeners()
    socket.on('error', () => {})
    socket.destroy()
  }
  const finish = (answer: Buffer | undefined): void => {
    giveUp()
    onEnd(answer)
  }
  socket.on('error', () => finish(undefined))
  socket.on('close', () => finish(undefined))
  socket.on('connect', () => socket.write(frame(withId(message, id))))
  socket.on('data', (chunk) => {
    const answer = frames.push(chunk).find((candidate) => isAnswerTo(candidate, query, id))
    if (answer) finish(withId(answer, query.id))
  })
  return giveUp
}
