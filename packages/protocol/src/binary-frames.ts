/** Ask for this WebSocket subprotocol to get output as binary frames instead of JSON. */
export const BINARY_SUBPROTOCOL = 'wrenn.v1.binary'

const binaryKinds = { input: 0, stdout: 1, stderr: 2, output: 3 } as const
/** What a binary frame carries: input of a process or terminal, one of its streams, or output of a terminal. */
export type BinaryKind = keyof typeof binaryKinds

const HEADER_BYTES = 9

/** A binary frame: one byte kind, eight bytes offset (big endian), payload. Frames to the server have offset 0. */
export function encodeBinaryFrame(kind: BinaryKind, offsetBytes: number | bigint, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(HEADER_BYTES + payload.length)
  const view = new DataView(frame.buffer)
  view.setUint8(0, binaryKinds[kind])
  view.setBigUint64(1, BigInt(offsetBytes))
  frame.set(payload, HEADER_BYTES)
  return frame
}

/** A frame of the binary subprotocol, taken apart. */
export interface BinaryFrame {
  readonly kind: BinaryKind
  /** Where the payload begins in the output of the process; 0 in frames to the server. */
  readonly offset: number
  /** A view into the frame, not a copy. */
  readonly payload: Uint8Array
}

/** The parts of a binary frame, or `undefined` when it is not one. */
export function decodeBinaryFrame(frame: Uint8Array): BinaryFrame | undefined {
  if (frame.length < HEADER_BYTES) return undefined
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length)
  const kind = binaryKindNames[view.getUint8(0)]
  if (kind === undefined) return undefined
  return { kind, offset: Number(view.getBigUint64(1)), payload: frame.subarray(HEADER_BYTES) }
}

const binaryKindNames: readonly (BinaryKind | undefined)[] = ['input', 'stdout', 'stderr', 'output']
