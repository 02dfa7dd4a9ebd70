import { open, readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { AppError, errorText, KeyedMutex, UndoStack } from '@wrenn/base'
import { LayerStore } from '../../host/images/index.js'
import { LOADER_FILES } from '../../host/loader/index.js'
import { lostLearned } from '../../host/names/index.js'
import { type Context, currentDir, dirs } from '../context.js'
import {
  layersOf,
  type OpenVault,
  PORTABLE,
  readPortable,
  type StoreKey,
  type Vault,
  writePortable,
} from '../state/index.js'
import { STATE_FILES } from '../state-files.js'
import type { Entry } from '../table.js'
import type { CapsuleRecord } from '../types.js'
import type { Sleep } from './sleep.js'

/** What a state consists of in a store; read-only files are stored each for itself, once for a team. */
const FILES = [...Object.values(STATE_FILES), 'manifest.json', 'durable.json', PORTABLE]
/** Stored with it where it is there: what a guest read first that ran before its memory was whole. */
const HINTS = [LOADER_FILES.workingSet]

/** A state that is in the store. */
export interface StoredState {
  readonly record: CapsuleRecord
  readonly bytes: number
  readonly sentBytes: number
  readonly layers: readonly string[]
}

/** A fetch that is under way. */
interface Fetching {
  readonly abort: AbortController
  readonly layers: Set<string>
}

/** Which capsule, as which state, of whom. */
export interface StateRef {
  readonly capsuleId: CapsuleRecord['capsuleId']
  readonly stateId: string
  readonly key: StoreKey
}

/**
 * Brings saved states into an object store and back. What is here stays until somebody who has written down that the stored state is
 * the capsule from now on says so: until then the capsule is what it was, and may be resumed at any moment.
 */
export class Hibernation {
  readonly #context: Context
  readonly #sleep: Sleep
  readonly #openVault: OpenVault
  readonly #fetching = new Map<string, Fetching>()
  readonly #storing = new KeyedMutex()

  constructor(context: Context, sleep: Sleep, openVault: OpenVault) {
    this.#context = context
    this.#sleep = sleep
    this.#openVault = openVault
  }

  /** Digests of layers that came for capsules which have no record yet. */
  get layers(): readonly string[] {
    return [...this.#fetching.values()].flatMap(({ layers }) => [...layers])
  }

  /**
   * Stores a paused capsule's state, once it is durable.
   * @param known digests of layers that are in the store
   * @throws AppError `invalid_state`, `conflict` when it was resumed, changed or destroyed meanwhile, `not_supported`, and those of the store
   */
  async store(ref: StateRef, known: readonly string[], signal: AbortSignal): Promise<StoredState> {
    // Whoever took the operation over may ask while an earlier call still reads what this one would write.
    return await this.#storing.run(ref.capsuleId, async () => await this.#store(ref, known, signal), signal)
  }

  async #store(
    { capsuleId, stateId, key }: StateRef,
    known: readonly string[],
    signal: AbortSignal,
  ): Promise<StoredState> {
    const { table, states, reach, logger } = this.#context
    const vault = await this.#openVault(key)
    const { entry, record, bytes } = await table.exclusive(capsuleId, async () => {
      const entry = table.require(capsuleId, 'hibernate')
      if (entry.record.state !== 'paused') {
        throw new AppError('invalid_state', `The capsule is ${entry.record.state}; only a paused one can be stored.`)
      }
      await this.#requireNoCheckpoints(capsuleId)
      const bytes = (await this.isStoredAs(entry, stateId, 0)) ? entry.record.stored?.bytes : undefined
      return { entry, record: entry.record, bytes }
    })
    const isStored = bytes !== undefined && (await vault.has(stateId, signal))
    if (isStored) return { record, bytes, sentBytes: 0, layers: layersOf(record) }
    reach('store:begun')
    using watch = this.#watch(record, signal)
    const dir = currentDir(entry)
    await this.#untilDurable(entry, watch.signal)
    reach('store:durable')
    const manifest = await states.intact(dir)
    const layers = layersOf(manifest)
    await writePortable(states.path(dir), entry.record)
    const saved = await watch.unlessChanged(async () => {
      let layerBytes = 0
      for (const digest of layers) {
        // A database that was restored may know of one that is not there any more.
        if (known.includes(digest) && (await vault.has(layerId(digest), watch.signal))) continue
        layerBytes += await this.#storeLayer(vault, digest, watch.signal)
      }
      const hints = (await readdir(states.path(dir))).filter((name) => HINTS.some((hint) => hint === name))
      const files = [...FILES, ...hints].map((name) => ({ name, path: join(states.path(dir), name) }))
      const { bytes, sentBytes } = await vault.save(stateId, files, { signal: watch.signal })
      return { bytes, sentBytes: sentBytes + layerBytes }
    })
    reach('store:saved')
    await table.exclusive(capsuleId, async () => {
      if (!isSame(entry.record, record) || table.find(capsuleId) !== entry) throw changed()
      await this.#requireNoCheckpoints(capsuleId)
      const { files } = record
      const { savedAtMs } = manifest
      await table.store(entry, { stored: { stateId, files, savedAtMs, bytes: saved.bytes, attempt: 0 } })
      await table.sync(entry)
    })
    reach('store:noted')
    logger.info({ capsuleId, stateId, ...saved }, 'capsule.stored')
    return { record: entry.record, bytes: saved.bytes, sentBytes: saved.sentBytes, layers }
  }

  /**
   * Makes a paused capsule of a stored state. A later attempt takes over what an earlier one, or the store itself, has left here.
   * @throws AppError `conflict` when it is here in another state, `state_not_loadable`, `snapshot_damaged`, `disk_full`, `not_supported`, and
   * those of the store; nothing of it is here then
   */
  async fetch(ref: StateRef, wish: FetchWish, signal: AbortSignal): Promise<FetchedState> {
    const { table } = this.#context
    const { capsuleId } = ref
    return await table.exclusive(capsuleId, async () => {
      const there = table.find(capsuleId)
      const fetching = { abort: new AbortController(), layers: new Set<string>() }
      this.#fetching.set(capsuleId, fetching)
      try {
        const either = AbortSignal.any([signal, fetching.abort.signal])
        const how = { fetching, signal: either }
        return there === undefined ? await this.#fetch(ref, wish, how) : await this.#takeOver(there, ref, wish, how)
      } finally {
        this.#fetching.delete(capsuleId)
      }
    })
  }

  /** Whoever waits for the capsule wants it gone. */
  giveUp(capsuleId: string): void {
    this.#fetching.get(capsuleId)?.abort.abort(new AppError('conflict', 'The capsule was destroyed meanwhile.'))
  }

  /** Whether what is here of a capsule is exactly what was stored as this state, or fetched by this attempt. */
  async isStoredAs({ record }: Entry, stateId: string, attempt: number): Promise<boolean> {
    const { stored, state, files, capsuleId } = record
    if (state !== 'paused' || stored?.stateId !== stateId || stored.files !== files) return false
    if (stored.attempt !== attempt) return false
    const manifest = await this.#context.states.read(dirs.generation(capsuleId, files))
    return manifest?.savedAtMs === stored.savedAtMs && !(await this.#hasCheckpoints(capsuleId))
  }

  async #takeOver(entry: Entry, ref: StateRef, wish: FetchWish, how: Bringing): Promise<FetchedState> {
    const { table } = this.#context
    const { stateId } = ref
    const { attempt } = wish
    const { stored, state, loadedFrom } = entry.record
    if (loadedFrom === stateId && (await this.#isLost(entry))) return await this.#fetchAgain(entry, ref, wish, how)
    if (stored?.stateId === stateId && stored.attempt === attempt) return { record: entry.record, fetchedBytes: 0 }
    const isOlder = stored !== undefined && stored.attempt < attempt
    if (!isOlder || !(await this.isStoredAs(entry, stateId, stored.attempt))) {
      // It has run since: what is here is later than the state that it came from.
      if (loadedFrom === stateId) return { record: entry.record, fetchedBytes: 0 }
      throw new AppError('conflict', `The capsule is ${state} here, in another state.`)
    }
    // From here on whoever was told to free what was here before does not.
    await table.store(entry, { stored: { ...stored, attempt }, wakeAttempt: attempt })
    await table.sync(entry)
    return { record: entry.record, fetchedBytes: 0 }
  }

  /** Whether nothing is here that a capsule could go on from, which once ran before its memory was whole. */
  async #isLost(entry: Entry): Promise<boolean> {
    const { states, machine } = this.#context
    const { state, fallback, checkpointId } = entry.record
    if (state !== 'paused' && state !== 'error') return false
    const dir = currentDir(entry)
    if ((await states.read(dir)) !== undefined) return (await machine.memory.status(states.path(dir))) === 'broken'
    return state === 'error' && fallback === undefined && checkpointId === undefined
  }

  /** Puts a capsule that has ended back to the state that it came from, now all of it at once. */
  async #fetchAgain(
    entry: Entry,
    { capsuleId, stateId, key }: StateRef,
    wish: FetchWish,
    how: Bringing,
  ): Promise<FetchedState> {
    const { table, states, machine, logger, reach } = this.#context
    const { exit, files: old } = entry.record
    const { bytes, attempt } = wish
    await entry.teardown
    const lostDir = currentDir(entry)
    const isBroken = (await machine.memory.status(states.path(lostDir))) === 'broken'
    const why = isBroken ? await machine.memory.failure(states.path(lostDir)) : (exit?.message ?? 'its guest ended')
    const vault = await this.#openVault(key)
    await machine.pool.ensureSpace(bytes)
    const files = old + 1
    const dir = dirs.generation(capsuleId, files)
    await using undo = new UndoStack()
    await undo.defer(() => states.remove(dir))
    const { manifest, durable, fetchedBytes } = await this.#bring(vault, stateId, dir, wish, how)
    reach('fetch:again')
    const when = new Date(manifest.savedAtMs).toISOString()
    await table.store(entry, {
      files,
      stored: { stateId, files, savedAtMs: manifest.savedAtMs, bytes, attempt },
      wakeAttempt: attempt,
      durableAtMs: durable?.atMs,
      pausedAtMs: Date.now(),
      notice: `The capsule had ended before a state of it was saved here (${why.replace(/\.$/, '')}) and went on from the state saved at ${when}.`,
    })
    undo.move()
    await table.sync(entry)
    await states.remove(lostDir).catch((error: unknown) => logger.warn({ err: error, lostDir }, 'state.not_removed'))
    logger.warn({ capsuleId, stateId, why }, 'capsule.fetched_again')
    return { record: entry.record, fetchedBytes }
  }

  async #fetch({ capsuleId, stateId, key }: StateRef, wish: FetchWish, how: Bringing): Promise<FetchedState> {
    const { table, states, machine, reach, logger, bootId } = this.#context
    const { bytes, attempt, fromDisk = false, mayLoadLazily = false } = wish
    const started = performance.now()
    const vault = await this.#openVault(key)
    await machine.pool.ensureSpace(bytes)
    await using undo = new UndoStack()
    await undo.defer(() => states.remove(dirs.capsule(capsuleId)))
    const dir = dirs.generation(capsuleId, 0)
    reach('fetch:begun')
    const lazily = mayLoadLazily && !fromDisk ? await this.#tryLazily(vault, stateId, dir, wish, how) : undefined
    const { manifest, durable, fetchedBytes } = lazily ?? (await this.#bring(vault, stateId, dir, wish, how))
    const record = await readPortable(states.path(dir), manifest, {
      ...{ capsuleId, bootId },
      durableAtMs: durable?.atMs,
      stored: { stateId, files: 0, savedAtMs: manifest.savedAtMs, bytes, attempt },
      wakeAttempt: attempt,
      loadedFrom: lazily && stateId,
    })
    reach('fetch:placed')
    how.signal.throwIfAborted()
    const entry = table.add(record)
    // What its guests elsewhere were seen to use was in memory there.
    if (record.egress.learn === true) entry.learned = lostLearned
    await undo.defer(() => table.remove(entry))
    await table.store(entry, {})
    await table.sync(entry)
    await states.intact(dir) // its layers are named by a record now; nobody has taken one away before
    undo.move()
    reach('fetch:noted')
    const ms = Math.round(performance.now() - started)
    entry.fetched = { step: lazily === undefined ? 'fetch' : 'fetch_lazily', ms }
    if (durable === undefined) this.#sleep.flush(entry)
    logger.info({ capsuleId, stateId, fetchedBytes, lazily: lazily !== undefined, ms }, 'capsule.fetched')
    return { record: entry.record, fetchedBytes }
  }

  /** `undefined` where this host cannot: all of it is fetched then. */
  async #tryLazily(vault: Vault, stateId: string, dir: string, wish: FetchWish, how: Bringing) {
    if (vault.lazily === undefined) return undefined
    const { states, logger, reach } = this.#context
    const { lazily } = vault
    try {
      const brought = await this.#bring(lazily, stateId, dir, wish, { ...how, layersFrom: vault })
      await lazily.start(stateId, states.path(dir))
      reach('fetch:served')
      return brought
    } catch (error) {
      how.signal.throwIfAborted()
      if (!AppError.is(error, 'engine_failure')) throw error
      logger.warn({ stateId, error: errorText(error) }, 'capsule.not_fetched_lazily')
      await states.remove(dir)
      return undefined
    }
  }

  /** Puts a state of the store into a directory, as one step that survives a power loss. */
  async #bring(
    from: Pick<Vault, 'load'>,
    stateId: string,
    dir: string,
    { fromDisk = false }: FetchWish,
    { fetching: { layers }, signal, layersFrom = from }: Bringing,
  ) {
    const { states, reach } = this.#context
    await using draft = await states.draft(dir)
    const { fetchedBytes } = await from.load(stateId, states.path(draft.dir), { signal })
    reach('fetch:loaded')
    const manifest = await states.read(draft.dir)
    if (manifest === undefined) throw new AppError('snapshot_damaged', 'The stored state has no manifest.')
    if (!fromDisk) await states.requireLoadable(manifest)
    for (const digest of layersOf(manifest)) {
      layers.add(digest)
      await this.#fetchLayer(layersFrom, digest, draft.dir, signal)
    }
    const isLazy = layersFrom !== from
    if (isLazy) await states.intactDisk(draft.dir, manifest)
    else await states.intact(draft.dir)
    reach('fetch:adopted')
    const durable = await states.durable(draft.dir)
    await states.seal(draft.dir)
    await draft.keep()
    for (const each of [dir, dirname(dir), 'capsules']) await syncFolder(states.path(each))
    return { manifest, durable, fetchedBytes }
  }

  async #storeLayer(vault: Vault, digest: string, signal: AbortSignal): Promise<number> {
    const file = { name: digest, path: this.#layers.layerPath(digest) }
    // Every capsule of the team would get it from there.
    if (!(await this.#layers.isIntact(digest))) {
      throw new AppError(
        'snapshot_damaged',
        `The layer ${digest} on this host has another content than it should: nothing that stands on it is stored.`,
      )
    }
    return (await vault.save(layerId(digest), [file], { signal })).sentBytes
  }

  /** By its content, for it is everybody's on this host. */
  async #fetchLayer(vault: Pick<Vault, 'load'>, digest: string, draft: string, signal: AbortSignal): Promise<void> {
    const { states } = this.#context
    if ((await this.#layers.digests()).includes(digest)) return
    const folder = states.path(draft)
    await vault.load(layerId(digest), folder, { signal })
    const { digest: found } = await this.#layers.adopt(join(folder, digest), signal)
    if (found === digest) return
    throw new AppError('snapshot_damaged', `The layer ${digest} in the store has another content.`)
  }

  get #layers(): LayerStore {
    return new LayerStore(this.#context.machine.pool.path)
  }

  /** Flushed at once, for somebody waits. */
  async #untilDurable(entry: Entry, signal: AbortSignal): Promise<void> {
    if (entry.record.durableAtMs !== undefined) return
    const { table } = this.#context
    const { capsuleId } = entry.record
    const { promise, resolve, reject } = withResolvers<void>()
    const stop = table.watch((event) => {
      if ('record' in event && event.record.capsuleId === capsuleId && event.record.durableAtMs !== undefined) resolve()
    })
    const onAbort = (): void => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      this.#sleep.flush(entry, { settleMs: 0, onFailure: reject })
      signal.throwIfAborted()
      await promise
    } finally {
      signal.removeEventListener('abort', onAbort)
      stop()
    }
  }

  /** Ends what is done with a state when its capsule changes: nothing of it counts any more. */
  #watch(record: CapsuleRecord, given: AbortSignal) {
    const { table } = this.#context
    const abort = new AbortController()
    const signal = AbortSignal.any([given, abort.signal])
    const stop = table.watch((event) => {
      const isGone = 'removed' in event && event.removed === record.capsuleId
      const isOther = 'record' in event && event.record.capsuleId === record.capsuleId && !isSame(event.record, record)
      if (isGone || isOther) abort.abort(changed())
    })
    const unlessChanged = async <T>(work: () => Promise<T>): Promise<T> => {
      try {
        return await work()
      } catch (error) {
        throw signal.aborted ? signal.reason : error
      }
    }
    return { signal, unlessChanged, [Symbol.dispose]: () => void stop() }
  }

  async #requireNoCheckpoints(capsuleId: string): Promise<void> {
    if (!(await this.#hasCheckpoints(capsuleId))) return
    throw new AppError('invalid_state', 'The capsule has checkpoints, which stay on their host: delete them first.')
  }

  async #hasCheckpoints(capsuleId: string): Promise<boolean> {
    return (await this.#context.states.list(dirs.checkpoints(capsuleId))).length > 0
  }
}

/** How much comes, and the number of the attempt to have it come. */
export interface FetchWish {
  readonly bytes: number
  readonly attempt: number
  /** It is to start from its disk, so that its memory need not be loadable here. @default false */
  readonly fromDisk?: boolean
  /** Whoever asks keeps what is in the store until the capsule has a durable state here. @default false */
  readonly mayLoadLazily?: boolean
}

/** How a state is brought here. */
interface Bringing {
  readonly fetching: Fetching
  readonly signal: AbortSignal
  /** Where its read-only files are. @default where the state is */
  readonly layersFrom?: Pick<Vault, 'load'>
}

/** A state that came back. */
export interface FetchedState {
  readonly record: CapsuleRecord
  readonly fetchedBytes: number
}

/** Whether a capsule goes back to the state in the store that it came from when it ends: nothing durable of it is here yet. */
export function needsStored({ loadedFrom, state, durableAtMs, fallback }: CapsuleRecord): boolean {
  return loadedFrom !== undefined && fallback === undefined && (state !== 'paused' || durableAtMs === undefined)
}

/** What a layer is stored as; a state's own id is never like it. */
function layerId(digest: string): string {
  return `layer-${digest}`
}

function isSame(now: CapsuleRecord, then: CapsuleRecord): boolean {
  return now.state === 'paused' && now.files === then.files && now.pausedAtMs === then.pausedAtMs
}

function changed(): AppError {
  return new AppError('conflict', 'The capsule was used or changed while its state was being stored; it goes on here.')
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, 'r')
  await folder.sync()
}

function withResolvers<T>() {
  let resolve: (value: T) => void = () => {}
  let reject: (reason: unknown) => void = () => {}
  const promise = new Promise<T>((onDone, onError) => {
    resolve = onDone
    reject = onError
  })
  promise.catch(() => {}) // it is awaited, or nobody needs it
  return { promise, resolve, reject }
}
