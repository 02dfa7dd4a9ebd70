/** `pty` is a terminal's output, which has no second stream. */
export type OutputKind = 'stdout' | 'stderr' | 'pty'

/** A piece of a process's output. Offsets count all its streams together, so that one number says where a reader is. */
export interface OutputChunk {
  readonly kind: OutputKind
  /** Position of the first byte in the combined output. */
  readonly offset: number
  readonly data: Buffer
}
