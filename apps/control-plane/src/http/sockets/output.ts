import { TextDecoder } from 'node:util'
import { encodeBinaryFrame } from '@wrenn/protocol'
import { exitInfo, type SessionEvent } from '../../domain/session.js'
import type { Channel } from './channel.js'

export type OutputEncoding = 'text' | 'base64' | 'binary'

type Data = Extract<SessionEvent, { case: 'data' }>['value']
type StreamName = 'stdout' | 'stderr' | 'output'

/** Sends what a process writes, in the form the client asked for. */
export class OutputSender {
  readonly #channel: Channel
  readonly #encoding: OutputEncoding
  /** Characters that are cut between two chunks wait for their rest. */
  readonly #decoders: Partial<Record<StreamName, TextDecoder>> = {}

  constructor(channel: Channel, encoding: OutputEncoding) {
    this.#channel = channel
    this.#encoding = channel.binary ? 'binary' : encoding
  }

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
    this.#decoders[type] ??= new TextDecoder()
    const data = this.#decoders[type].decode(output.value, { stream: true })
    if (data !== '') await this.#channel.send({ type, data, ...at })
  }

  async lost(from: bigint, to: bigint): Promise<void> {
    await this.#channel.send({ type: 'lost', from: Number(from), to: Number(to) })
  }

  async exit(end: Extract<SessionEvent, { case: 'end' }>['value']): Promise<void> {
    for (const type of ['stdout', 'stderr'] as const) {
      const rest = this.#decoders[type]?.decode()
      if (rest) await this.#channel.send({ type, data: rest })
    }
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
