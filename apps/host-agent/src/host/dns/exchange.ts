import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { connect, isIPv6 } from 'node:net'
import { FrameReader, frame } from './frames.js'
import { isAnswerTo, type Query, withId } from './message.js'

export interface Server {
  readonly address: string
  readonly port: number
}

/** Asks one server once. `undefined`: no answer within the time, or none that fits. */
export type Exchange = (message: Buffer, query: Query, server: Server, timeoutMs: number) => Promise<Buffer | undefined>

/** A socket per question: its random port and id are what makes an answer hard to forge. */
export const exchangeUdp: Exchange = (message, query, { address, port }, timeoutMs) => {
  const id = randomInt(0x10000)
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(address.split('%')[0] ?? '') ? 'udp6' : 'udp4')
    const finish = (answer: Buffer | undefined): void => {
      clearTimeout(timer)
      socket.removeAllListeners()
      socket.on('error', () => {})
      socket.close()
      resolve(answer)
    }
    const timer = setTimeout(finish, timeoutMs, undefined)
    // "Connection refused" arrives here: no need to wait for the timeout.
    socket.on('error', () => finish(undefined))
    socket.on('message', (answer) => {
      if (isAnswerTo(answer, query, id)) finish(withId(answer, query.id))
    })
    socket.connect(port, address, () => socket.send(withId(message, id)))
  })
}

export const exchangeTcp: Exchange = (message, query, { address, port }, timeoutMs) => {
  const id = randomInt(0x10000)
  return new Promise((resolve) => {
    const socket = connect(port, address)
    const frames = new FrameReader()
    const finish = (answer: Buffer | undefined): void => {
      clearTimeout(timer)
      socket.destroy()
      resolve(answer)
    }
    const timer = setTimeout(finish, timeoutMs, undefined)
    socket.on('error', () => finish(undefined))
    socket.on('close', () => finish(undefined))
    socket.on('connect', () => socket.write(frame(withId(message, id))))
    socket.on('data', (chunk) => {
      const answer = frames.push(chunk).find((candidate) => isAnswerTo(candidate, query, id))
      if (answer) finish(withId(answer, query.id))
    })
  })
}
