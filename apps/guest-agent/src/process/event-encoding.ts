import type { ConnectResponseSchema, StartResponseSchema } from '@wrenn/protocol/guest'
import type { EventStream } from '../rpc/event-stream.js'
import type { OutputChunk, OutputKind } from './output-chunk.js'

/** Both response messages have the same shape on the wire: one field, the event. */
export type ProcessEvents = EventStream<typeof StartResponseSchema> | EventStream<typeof ConnectResponseSchema>

/** `ProcessEvent.DataEvent` field numbers. */
const dataFields: Readonly<Record<OutputKind, number>> = { stdout: 1, stderr: 2, pty: 3 }
const OFFSET_FIELD = 100
const VARINT = 0
const LENGTH_DELIMITED = 2

/**
 * Sends a chunk of output. Encoded by hand, because output is the one message whose size matters: the binary codec then
 * copies nothing, the JSON codec makes exactly one base64 text.
 */
export function sendOutput(events: ProcessEvents, chunk: OutputChunk, withOffset: boolean): Promise<void> | undefined {
  const { parts, length } =
    events.codec.name === 'proto' ? binaryOutput(chunk, withOffset) : jsonOutput(chunk, withOffset)
  return events.sendParts(parts, length)
}

interface Encoded {
  readonly parts: readonly Uint8Array[]
  readonly length: number
}

function jsonOutput({ kind, data, offset }: OutputChunk, withOffset: boolean): Encoded {
  const tail = withOffset ? `","offset":"${offset}"}}}` : '"}}}'
  const text = Buffer.from(`{"event":{"data":{"${kind}":"${data.toString('base64')}${tail}`, 'latin1')
  return { parts: [text], length: text.length }
}

function binaryOutput({ kind, data, offset }: OutputChunk, withOffset: boolean): Encoded {
  const field = [...tag(dataFields[kind], LENGTH_DELIMITED), ...varint(data.length)]
  const tail = withOffset ? [...tag(OFFSET_FIELD, VARINT), ...varint(offset)] : []
  const dataEvent = field.length + data.length + tail.length
  const processEvent = [...tag(2, LENGTH_DELIMITED), ...varint(dataEvent)]
  const response = [...tag(1, LENGTH_DELIMITED), ...varint(processEvent.length + dataEvent)]
  const head = Buffer.from([...response, ...processEvent, ...field])
  return { parts: [head, data, Buffer.from(tail)], length: head.length + data.length + tail.length }
}

function tag(field: number, type: number): number[] {
  return varint(field * 8 + type)
}

/** Base-128 varint; offsets pass 2^32, so no bit operations on the whole. */
function varint(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) + 0x80)
    rest = Math.floor(rest / 0x80)
  }
  bytes.push(rest)
  return bytes
}
