import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import type { ObjectStoreConfig } from './config.js'
import type { ObjectStore, StoreAbilities, StoreOptions } from './object-store.js'
import type { S3Store } from './s3-store.js'

const PROBE_FOLDER = 'probe'
const PROBE_BYTES = 64
const CLEANUP_MS = 2_000
const LISTED_WITHIN_MS = 10_000
const LOOK_EVERY_MS = 250
const RANGE = { first: 8, last: 15 } as const

/**
 * Opens the store after its server was seen to do what is needed: one small object is written, read, listed and removed. Whoever gets the
 * store closes it.
 * @throws AppError `object_store_refused` with a sentence that says what is wrong and which setting to look at
 * @throws AppError `object_store_unavailable` when it does not answer; the signal's reason
 */
export async function openObjectStore(config: ObjectStoreConfig, options: StoreOptions = {}): Promise<ObjectStore> {
  // The SDK is read only where there is an object store.
  const { S3Store } = await import('./s3-store.js')
  const store = new S3Store(config, options)
  try {
    store.abilities = await probe(store, options.signal)
    return store
  } catch (error) {
    store.close()
    throw error
  }
}

/** The store of a server that another process has opened before: nothing is probed. Whoever gets the store closes it. */
export async function attachObjectStore(config: ObjectStoreConfig, options: StoreOptions = {}): Promise<ObjectStore> {
  const { S3Store } = await import('./s3-store.js')
  return new S3Store(config, options)
}

async function probe(store: S3Store, signal: AbortSignal | undefined): Promise<StoreAbilities> {
  const key = `${PROBE_FOLDER}/${randomBytes(16).toString('hex')}`
  try {
    const abilities = await tryOut(store, key, signal)
    await store.remove([key], signal)
    needs(!(await store.has(key, signal)), store, 'still has what was removed')
    return abilities
  } catch (error) {
    // What went wrong first is told, also where the object cannot be removed either.
    await store.remove([key], AbortSignal.timeout(CLEANUP_MS)).catch(() => {})
    throw error
  }
}

async function tryOut(store: S3Store, key: string, signal: AbortSignal | undefined): Promise<StoreAbilities> {
  const bytes = randomBytes(PROBE_BYTES)
  const read = { maxBytes: PROBE_BYTES, signal }
  await store.put(key, bytes, signal)
  needs((await store.get(key, read))?.equals(bytes) === true, store, 'does not give back what was written')
  await untilListed(store, key, signal)
  const range = await store.getRange(key, RANGE.first, RANGE.last, read)
  return {
    ranges: range?.equals(bytes.subarray(RANGE.first, RANGE.last + 1)) === true,
    conditionalWrites: await hasConditionalWrites(store, key, bytes, signal),
  }
}

/** Listings may lag behind what was written (Swift's do, when it is busy), which is no reason to refuse the server. */
async function untilListed(store: S3Store, key: string, signal: AbortSignal | undefined): Promise<void> {
  const deadline = performance.now() + LISTED_WITHIN_MS
  for (;;) {
    for await (const { key: found, sizeBytes } of store.list(key, signal)) {
      if (found === key && sizeBytes === PROBE_BYTES) return
    }
    if (performance.now() >= deadline) break
    await delay(LOOK_EVERY_MS, undefined, signal ? { signal } : {}).catch(() => signal?.throwIfAborted())
  }
  const message = `The object store ${store.name} does not list what was written ${LISTED_WITHIN_MS / 1000} seconds ago.`
  throw new AppError('object_store_unavailable', message)
}

async function hasConditionalWrites(store: S3Store, key: string, bytes: Buffer, signal: AbortSignal | undefined) {
  try {
    return !(await store.putIfAbsent(key, bytes, signal))
  } catch (error) {
    // A server that knows no conditions says so in many ways (Swift: 501).
    if (AppError.is(error, 'object_store_refused')) return false
    throw error
  }
}

function needs(isMet: boolean, { name }: ObjectStore, lack: string): void {
  if (!isMet) throw new AppError('object_store_refused', `The object store ${name} ${lack}: it cannot be used.`)
}
