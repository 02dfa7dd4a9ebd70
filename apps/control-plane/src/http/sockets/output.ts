import { encodeBinaryFrame } from '@wrenn/protocol'
import { exitInfo, type SessionEvent } from '../../domain/commands/index.js'
import type { Channel } from './channel.js'
import { type TextPiece, TextPieces } from './text-pieces.js'

/** How output travels: as text, which damages other bytes; as base64 in JSON; or as frames of the binary subprotocol. */
export type OutputEncoding = 'text' | 'base64' | 'binary'

type Data = Extract<SessionEvent, { case: 'data' }>['value']
type StreamName = 'stdout' | 'stderr' | 'output'

/** Sends what a process writes, in the form the client asked for. */
export class OutputSender {
  readonly #channel: Channel
  readonly #encoding: OutputEncoding
  readonly #texts: Partial<Record<StreamName, TextPieces>> = {}

  constructor(channel: Channel, encoding: OutputEncoding) {
    this.#channel = channel
    this.#encoding = channel.binary ? 'binary' : encoding
  }

  /** Sends a piece of output; in text form a character that is cut waits for its rest. */
  async data({ output, offset }: Data): Promise<void> {
    if (output.value === undefined || output.value.length === 0) return
    const type = output.case === 'pty' ? 'output' : output.case
    if (this.#encoding === 'binary') {
      await this.#channel.send(encodeBinaryFrame(type, offset ?? 0n, output.value))
      return
    }
    const at = offset === undefined ? {} : { offset: Number(offset) }
    if (this.#encoding === 'base64' || type === 'output') {
      const data = Buffer.from(output.value.buffer, output.value.byteOffset, output.value.length).toString('base64')
      await this.#channel.send({ type, data, ...at, ...(type === 'output' ? {} : { encoding: 'base64' }) })
      return
    }
    this.#texts[type] ??= new TextPieces()
    await this.#text(type, this.#texts[type].next(output.value, at.offset))
  }

  async #text(type: StreamName, piece: TextPiece | undefined): Promise<void> {
    if (piece === undefined) return
    const { text: data, offset } = piece
    await this.#channel.send({ type, data, ...(offset === undefined ? {} : { offset }) })
  }

  /** The rest of a character that is cut will not come any more. */
  async #flush(): Promise<void> {
    for (const type of ['stdout', 'stderr'] as const) await this.#text(type, this.#texts[type]?.end())
  }

  /** Tells of output that is no longer kept, [from, to). */
  async lost(from: bigint, to: bigint): Promise<void> {
    await this.#flush()
    await this.#channel.send({ type: 'lost', from: Number(from), to: Number(to) })
  }

  /** Sends what still waits, then the end. */
  async exit(end: Extract<SessionEvent, { case: 'end' }>['value']): Promise<void> {
    await this.#flush()
    const exit = exitInfo(end)
    await this.#channel.send({
      type: 'exit',
      exit_code: exit.exitCode,
      ...(exit.signal === undefined ? {} : { signal: exit.signal }),
      ...(exit.timedOut ? { timed_out: true } : {}),
      ...(exit.oomKilled ? { oom_killed: true } : {}),
      ...(end.offset === undefined ? {} : { offset: Number(end.offset) }),
    })
  }
}
