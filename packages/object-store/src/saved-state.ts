/** How far a save or load is, in bytes of the files. Holes do not count. */
export interface TransferProgress {
  readonly doneBytes: number
  readonly totalBytes: number
}

/** A stretch of a file that may hold something else than zeros. */
export interface DataRange {
  readonly offset: number
  readonly length: number
}

/** How a transfer is ended, slowed and followed. */
export interface TransferOptions {
  readonly signal: AbortSignal
  /** Of what goes over the network. @default no limit */
  readonly bytesPerSec?: number | undefined
  readonly onProgress?: ((progress: TransferProgress) => void) | undefined
}

/** How a state is loaded. */
export interface LoadOptions extends TransferOptions {
  /** Files that are not loaded: somebody reads them chunk by chunk. @default none */
  readonly except?: readonly string[] | undefined
}

/** How a state is saved. */
export interface SaveOptions extends TransferOptions {
  /** Tells what of a file is no hole, in order: what is not named is taken for zeros. @default the whole file is read */
  readonly dataRanges?:
    | ((path: string, options: { readonly signal: AbortSignal }) => AsyncIterable<DataRange>)
    | undefined
}

/** How unused chunks are removed. */
export interface CollectOptions {
  readonly signal: AbortSignal
  /**
   * States that must be there. A server's listings may lag behind what was written (Swift's do): what these states consist of stays, whatever
   * is listed, and nothing is removed when one of them cannot be read.
   */
  readonly known?: readonly string[]
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
  /** What went to the store, compressed and sealed: less also where chunks were there already. */
  readonly sentBytes: number
  /** Different chunks that the state consists of. */
  readonly chunks: number
  /** Of names, sizes and contents: the same files of one team have the same. */
  readonly digest: string
}

/** What a load did. */
export interface LoadResult {
  /** Of all files, without what is only zeros. */
  readonly bytes: number
  /** What came from the store. */
  readonly fetchedBytes: number
}

/** What a collection removed. */
export interface CollectResult {
  readonly removed: number
  readonly bytes: number
}
