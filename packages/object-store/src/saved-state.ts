/** How far a save or load is. Sizes are of what is not zeros. */
export interface TransferProgress {
  readonly doneBytes: number
  /** Known once all files were looked at. */
  readonly totalBytes: number | undefined
}

/** How a transfer is ended, slowed and followed. */
export interface TransferOptions {
  readonly signal: AbortSignal
  /** Of what goes over the network. @default no limit */
  readonly bytesPerSec?: number | undefined
  readonly onProgress?: ((progress: TransferProgress) => void) | undefined
}

/** A file of a state: `name` is what it is called in the store and in the folder it is loaded into, `path` where it is now. */
export interface StateFile {
  readonly name: string
  readonly path: string
}

/** What a save did. */
export interface SaveResult {
  /** Of all files, without what is only zeros. */
  readonly bytes: number
  /** What went to the store, compressed; less than `bytes` also where chunks were there already. */
  readonly sentBytes: number
  /** Chunks that the state consists of, each counted once. */
  readonly chunks: number
  /** Hash of names, sizes and contents; two saves of the same files for one team have the same. */
  readonly digest: string
}

/** What a load did. */
export interface LoadResult {
  readonly bytes: number
  /** What came from the store, compressed. */
  readonly fetchedBytes: number
}

/** What a collection removed. */
export interface CollectResult {
  readonly removed: number
  readonly bytes: number
}

/** Whose states these are. */
export interface StoredTeam {
  readonly id: string
  /** 32 bytes, of which all other keys of the team's objects are derived. It is kept nowhere. */
  readonly key: Buffer
}
