import type { Room } from './room.js'

/** Bounds of one request, in ms. What is over is tried again by the client, up to {@link StoreOptions.attempts} times. */
export interface StoreTimeouts {
  /** Until the connection is there. */
  readonly connectMs: number
  /** Without a byte in either direction, also inside a body. */
  readonly silenceMs: number
  /** Until the answer begins. */
  readonly answerMs: number
}

/** How requests are made. */
export interface StoreOptions {
  readonly timeouts?: Partial<StoreTimeouts>
  /** How often a request is made that may succeed later. @default 5 */
  readonly attempts?: number
  /** Of one listing or removal. @default 1,000, the most that S3 gives or takes */
  readonly keysAtOnce?: number
  /** Ends the probe with its reason. */
  readonly signal?: AbortSignal
}

/** What the server was seen to do when the store was opened, beside what is needed of it. */
export interface StoreAbilities {
  /** It answers a range of an object with that range. */
  readonly ranges: boolean
  /** It refuses to write an object that is there already when that is asked (`If-None-Match: *`). */
  readonly conditionalWrites: boolean
}

/** An object as listings tell of it. */
export interface StoredObject {
  readonly key: string
  readonly sizeBytes: number
}

/**
 * Whole objects in the bucket, below the configured prefix. Keys are relative to that, of letters, digits, `.`, `_`, `-` and `/`; anything
 * else is a bug of the caller. Each call is made again where that can help.
 *
 * All throw AppError `object_store_unavailable` where trying later can help, `object_store_refused` where the settings or the server have to
 * change first, or the signal's reason.
 */
export interface ObjectStore {
  /** `s3://bucket/prefix at endpoint`, for messages. */
  readonly name: string
  readonly abilities: StoreAbilities
  /** Of memory for chunks on their way: all transfers of the store share it. */
  readonly room: Room
  /** Writes an object; one of that key is replaced, at once and as a whole. */
  put(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void>
  /**
   * The whole object; `undefined` when there is none. Its size is what the server says; its bytes are whatever the server has: who reads
   * them checks them. One larger than `maxBytes` is not read: it throws AppError `stored_state_damaged`.
   */
  get(key: string, options: GetOptions): Promise<Buffer | undefined>
  has(key: string, signal?: AbortSignal): Promise<boolean>
  /** All objects whose keys begin with `prefix`, in the order of the keys. */
  list(prefix: string, signal?: AbortSignal): AsyncGenerator<StoredObject, void, void>
  /** Objects that are not there count as removed. */
  remove(keys: readonly string[], signal?: AbortSignal): Promise<void>
  /** Ends open connections. */
  close(): void
}

/** What of an object is read. */
export interface GetOptions {
  readonly maxBytes: number
  readonly signal?: AbortSignal | undefined
}
