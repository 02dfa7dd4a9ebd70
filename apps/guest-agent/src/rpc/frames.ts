import { AppError } from '@wrenn/base'

/** Flags of a frame, https://connectrpc.com/docs/protocol#streaming-rpcs */
export const FLAG_COMPRESSED = 0x01
/** The frame ends the stream: its payload is the JSON of `endOfStream`. */
export const FLAG_END = 0x02
const HEADER_BYTES = 5
const MAX_FRAME_BYTES = 64 * 1024 * 1024

/** One byte of flags and four of length, big endian; the payload follows. */
export function frameHeader(flags: number, length: number): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES)
  header[0] = flags
  header.writeUInt32BE(length, 1)
  return header
}

/** One message of a stream, still encoded and perhaps compressed. */
export interface Frame {
  readonly flags: number
  readonly payload: Buffer
}

/** Cuts a byte stream into frames, whatever the chunk borders. */
export async function* readFrames(source: AsyncIterable<Buffer>): AsyncGenerator<Frame> {
  let rest: Buffer = Buffer.alloc(0)
  let more: Buffer[] = []
  let moreBytes = 0
  let wanted = HEADER_BYTES
  for await (const chunk of source) {
    more.push(chunk)
    moreBytes += chunk.length
    // Joining only when a frame is complete keeps large frames from being copied once per chunk.
    if (rest.length + moreBytes < wanted) continue
    rest = rest.length === 0 && more.length === 1 ? chunk : Buffer.concat([rest, ...more])
    more = []
    moreBytes = 0
    for (;;) {
      const frame = firstFrame(rest)
      if (frame === undefined) break
      rest = rest.subarray(HEADER_BYTES + frame.payload.length)
      yield frame
    }
    wanted = rest.length < HEADER_BYTES ? HEADER_BYTES : HEADER_BYTES + rest.readUInt32BE(1)
  }
  if (rest.length + moreBytes > 0) throw new AppError('invalid_request', 'The request stream ends inside a frame.')
}

function firstFrame(bytes: Buffer): Frame | undefined {
  if (bytes.length < HEADER_BYTES) return undefined
  const length = bytes.readUInt32BE(1)
  if (length > MAX_FRAME_BYTES) throw new AppError('too_large', `A frame may have at most ${MAX_FRAME_BYTES} bytes.`)
  if (bytes.length < HEADER_BYTES + length) return undefined
  return { flags: bytes[0] ?? 0, payload: bytes.subarray(HEADER_BYTES, HEADER_BYTES + length) }
}
