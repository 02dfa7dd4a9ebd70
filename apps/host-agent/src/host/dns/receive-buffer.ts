import { readFileSync, writeFileSync } from 'node:fs'
import { errorText } from '@wrenn/base'

/** What a socket may be given, by everybody; a socket keeps what it was given. */
const LIMIT_FILE = '/proc/sys/net/core/rmem_max'

/** Of which `setRecvBufferSize` is needed here. */
interface Receiver {
  setRecvBufferSize(bytes: number): void
}

/**
 * Gives a socket a receive buffer beyond the machine's limit, which on Debian has room for some 500 questions, by raising the limit for
 * that moment: Node.js knows no SO_RCVBUFFORCE (socket(7)). Needs root; without it the socket gets what the limit allows.
 * @returns what kept the limit from being raised
 */
export function giveReceiveBuffer(socket: Receiver, bytes: number, limitFile = LIMIT_FILE): string | undefined {
  let before: string | undefined
  let problem: string | undefined
  try {
    const limit = readFileSync(limitFile, 'utf8').trim()
    if (Number(limit) < bytes) {
      writeFileSync(limitFile, `${bytes}`)
      before = limit
    }
  } catch (error) {
    problem = errorText(error)
  }
  try {
    socket.setRecvBufferSize(bytes)
  } finally {
    if (before !== undefined) writeFileSync(limitFile, before)
  }
  return problem
}
