import { AppError, type CapsuleId, errorText, KeyedMutex, type Logger } from '@wrenn/base'
import { type CapsuleCommand, type CapsuleState, isUsable, nextState } from '@wrenn/protocol'
import type { Learned } from '../host/names/index.js'
import type { Guest } from './guest/guest.js'
import type { Journal } from './journal.js'
import type { CapsuleRecord, Timing } from './types.js'

const REWRITE_AFTER_MS = 1_000

/** A capsule at work: its record, its guest while it has one, and what is under way beside the command that holds it. */
export interface Entry {
  record: CapsuleRecord
  guest: Guest | undefined
  /** Ends when the guest of the last pause or rollback has given everything back; its disk is locked until then. */
  teardown: Promise<void> | undefined
  /** Ends when a guest that was let run again knows the time and who it is; calls to it wait for that. */
  revival: Promise<void> | undefined
  /** The last write of its record: writes wait for each other, or one would undo what the other says. */
  writes: Promise<void>
  /** What its earlier guests were seen to use, while its policy learns; as long as the host agent runs. */
  learned?: Learned | undefined
  /** How it came from the object store, for the timings of the resume that it came for. */
  fetched?: Timing | undefined
  /** Rollbacks of the running guest by this host agent: whoever followed a process before one is in another time. */
  rollbacks?: number
}

/** A record as it is from now on, or the id of a capsule that is no more. */
export type CapsuleEvent = { readonly record: CapsuleRecord } | { readonly removed: CapsuleId }

/** The capsules of this host: what is known of each, who is at work on it, and who wants to hear of changes. */
export class CapsuleTable {
  readonly #journal: Journal
  readonly #logger: Logger
  /** Capsules of which the journal does not say yet what has happened. */
  readonly #unwritten = new Set<Entry>()
  readonly #entries = new Map<string, Entry>()
  readonly #mutex = new KeyedMutex()
  readonly #listeners = new Set<(event: CapsuleEvent) => void>()

  constructor(journal: Journal, logger: Logger) {
    this.#journal = journal
    this.#logger = logger
  }

  /** One command at a time per capsule. */
  async exclusive<T>(capsuleId: string, task: () => Promise<T>): Promise<T> {
    return await this.#mutex.run(capsuleId, task)
  }

  /** Whether a command works on the capsule or waits for one. */
  isBusy(capsuleId: string): boolean {
    return this.#mutex.isBusy(capsuleId)
  }

  list(): CapsuleRecord[] {
    return [...this.#entries.values()].map((entry) => entry.record)
  }

  entries(): Entry[] {
    return [...this.#entries.values()]
  }

  find(capsuleId: string): Entry | undefined {
    return this.#entries.get(capsuleId)
  }

  /** @throws AppError `capsule_not_found` */
  entry(capsuleId: string): Entry {
    const entry = this.#entries.get(capsuleId)
    if (entry === undefined) throw new AppError('capsule_not_found', 'The capsule is not on this host.')
    return entry
  }

  /** A capsule that is in the journal already; nobody is told of it. */
  add(record: CapsuleRecord): Entry {
    const entry: Entry = {
      record,
      guest: undefined,
      teardown: undefined,
      revival: undefined,
      writes: Promise.resolve(),
    }
    this.#entries.set(record.capsuleId, entry)
    return entry
  }

  /** The capsule is no more: out of the table, out of the journal, and listeners hear of it. */
  async remove(entry: Entry): Promise<void> {
    this.#entries.delete(entry.record.capsuleId)
    this.#unwritten.delete(entry)
    await entry.writes.catch(() => {}) // whoever wrote has been told
    await this.#journal.remove(entry.record.capsuleId)
    this.#emit({ removed: entry.record.capsuleId })
  }

  /** Calls `listener` for every change from now on; returns how to stop. */
  watch(listener: (event: CapsuleEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Why a capsule cannot answer, when it cannot. */
  whyGone(capsuleId: string): AppError | undefined {
    const record = this.find(capsuleId)?.record
    if (record === undefined) return new AppError('capsule_not_found', 'The capsule is not on this host.')
    if (isUsable(record.state)) return undefined
    if (record.exit !== undefined) return new AppError('guest_died', record.exit.message)
    return new AppError('invalid_state', `The capsule is ${record.state}, not running.`)
  }

  /** The entry of a capsule that can take `command`. @throws AppError `capsule_not_found`, `invalid_state` */
  require(capsuleId: string, command: CapsuleCommand): Entry {
    const entry = this.entry(capsuleId)
    this.#next(entry, command)
    return entry
  }

  /** @throws AppError `invalid_state` when the lifecycle table has no such step */
  async move(entry: Entry, command: CapsuleCommand, change: Partial<CapsuleRecord> = {}): Promise<void> {
    await this.#write(entry, () => ({ ...change, state: this.#next(entry, command) }))
  }

  /** The journal first: what is not in it did not happen. Does nothing for a capsule that was removed meanwhile. */
  async store(entry: Entry, change: Partial<CapsuleRecord>): Promise<void> {
    await this.#write(entry, () => change)
  }

  /**
   * `move` for what has happened already, so that it holds even while the journal cannot be written, as on a full disk: it is
   * told at once and written as soon as that works. Only where recovery comes to the same from what the journal says until then.
   */
  async settleMove(entry: Entry, command: CapsuleCommand, change: Partial<CapsuleRecord> = {}): Promise<void> {
    await this.#write(
      entry,
      () => ({ ...change, state: this.#next(entry, command) }),
      (cause) => this.#writeLater(entry, cause),
    )
  }

  /** `store` in the way of `settleMove`. */
  async settle(entry: Entry, change: Partial<CapsuleRecord>): Promise<void> {
    await this.#write(
      entry,
      () => change,
      (cause) => this.#writeLater(entry, cause),
    )
  }

  #writeLater(entry: Entry, cause: unknown): void {
    const { capsuleId } = entry.record
    this.#logger.error({ capsuleId, error: errorText(cause) }, 'journal.not_written')
    if (this.#unwritten.has(entry)) return
    this.#unwritten.add(entry)
    const again = (): void => {
      setTimeout(() => {
        if (this.#unwritten.has(entry)) this.store(entry, {}).catch(again)
      }, REWRITE_AFTER_MS).unref()
    }
    again()
  }

  /** What the journal says of a capsule survives a power loss when this returns. */
  async sync({ record }: Entry): Promise<void> {
    await this.#journal.sync(record.capsuleId)
  }

  async #write(
    entry: Entry,
    change: () => Partial<CapsuleRecord>,
    onFailure = (error: unknown): void => {
      throw error
    },
  ): Promise<void> {
    const write = async (): Promise<void> => {
      if (this.#entries.get(entry.record.capsuleId) !== entry) return
      const changed = change()
      await this.#journal.put({ ...entry.record, ...changed }).then(() => this.#unwritten.delete(entry), onFailure)
      entry.record = { ...entry.record, ...changed }
      this.#emit({ record: entry.record })
    }
    const written = entry.writes.then(write, write)
    entry.writes = written
    written.catch(() => {}) // its caller is told
    await written
  }

  #next(entry: Entry, command: CapsuleCommand): CapsuleState {
    const state = nextState(entry.record.state, command)
    if (state !== undefined) return state
    throw new AppError('invalid_state', `A capsule that is ${entry.record.state} cannot take "${command}".`)
  }

  #emit(event: CapsuleEvent): void {
    for (const listener of this.#listeners) listener(event)
  }
}
