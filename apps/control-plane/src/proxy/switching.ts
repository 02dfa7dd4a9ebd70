import type { Socket } from 'node:net'
import {
  type AnswerStart,
  HEAD_END,
  isBeginningOfHead,
  LINE_END_BYTES,
  MAX_HEAD_BYTES,
  readInterimHead,
} from './answer-head.js'

const SWITCHING = 101

/** What a service answers to a wish for another protocol. The connection is paused. */
export interface Switching {
  /** Its head, if it agrees. */
  readonly head: AnswerStart | undefined
  /** What has come after that head; of another answer, all that has come. */
  readonly seen: Buffer
}

/** Reads up to the end of the head. @throws Error when the connection ends before */
export function readSwitching(service: Socket): Promise<Switching> {
  return new Promise((resolve, reject) => {
    let seen: Buffer = Buffer.alloc(0)
    const stop = (): void => {
      service.off('data', onData).off('end', onEnd).off('close', onEnd)
      service.pause()
    }
    const onEnd = (): void => {
      stop()
      reject(new Error('The connection ended before an answer.'))
    }
    const onData = (bytes: Buffer): void => {
      const found = readAnswer(Buffer.concat([seen, bytes]), bytes.length)
      if (found.head === 'to come') {
        seen = found.seen
        return
      }
      stop()
      resolve({ head: found.head, seen: found.seen })
    }
    service.on('data', onData).on('end', onEnd).on('close', onEnd)
    if (service.destroyed || service.readableEnded) onEnd()
  })
}

interface Read {
  readonly head: AnswerStart | 'to come' | undefined
  readonly seen: Buffer
}

/** @param newBytes at the end of what was seen */
function readAnswer(seen: Buffer, newBytes: number): Read {
  const end = seen.indexOf(HEAD_END)
  if (end < 0) return { head: isBeginningOfHead(seen, newBytes) ? 'to come' : undefined, seen }
  if (end > MAX_HEAD_BYTES) return { head: undefined, seen }
  const head = readInterimHead(seen.toString('latin1', 0, end + LINE_END_BYTES))
  if (head === undefined) return { head, seen }
  const rest = seen.subarray(end + HEAD_END.length)
  // Who wishes for another protocol waits for no other interim answer.
  return head.status === SWITCHING ? { head, seen: rest } : readAnswer(rest, rest.length)
}
