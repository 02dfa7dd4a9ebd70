export type OutputKind = 'stdout' | 'stderr' | 'pty'

export interface OutputChunk {
  readonly kind: OutputKind
  /** Position of the first byte in the combined output. */
  readonly offset: number
  readonly data: Buffer
}
