import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { errorText, groupBy, type Logger } from '@wrenn/base'
import { LOADER_FILES } from '../../host/loader/index.js'
import type { Machine } from '../machine.js'
import { Blocks } from './blocks.js'
import type { StateStore } from './states.js'

/** A directory of the pool that counts for a team. */
export interface Holding {
  readonly dir: string
  readonly teamId: string
  /** Whose files these are, if they go with a capsule. */
  readonly capsuleId: string | undefined
  /** Since when nobody writes to it; `undefined` while a guest may. */
  readonly fixedSinceMs: number | undefined
}

/** What counts against a team's quota of the pool. */
export interface TeamUsage {
  readonly teamId: string
  /** What its files take of the pool, a block that several of them share once, those of templates not. */
  readonly bytes: number
}

interface Measured {
  /** Without what a template holds. */
  readonly blocks: Blocks
  /** Of the templates that were left out. */
  readonly baseVersion: number
  readonly startedAtMs: number
}

const TEMPLATES = 'templates'
/** Whoever asks again and again must not keep the process from its work. */
const USAGE_IS_FRESH_MS = 1_000

/**
 * What capsules, checkpoints and snapshots take of the pool. A checkpoint shares nearly all of its blocks with its capsule, so
 * sizes cannot be added: the places of all files are known here, and laid over each other. Places are read in the background,
 * once for what nobody writes to any more.
 */
export class Sizes {
  readonly #machine: Machine
  readonly #states: StateStore
  readonly #holdings: () => Promise<readonly Holding[]>
  readonly #logger: Logger
  readonly #measured = new Map<string, Measured>()
  readonly #templates = new Map<string, Blocks>()
  #base = Blocks.none()
  /** Changes with the set of templates: what was measured without others is not what it was. */
  #baseVersion = 0
  /** Something was removed whose blocks may live on in what is not measured, which must not go uncounted. */
  #hasGap = false
  /** What each directory alone holds, and each capsule with its checkpoints. */
  readonly #own = new Map<string, number>()
  readonly #families = new Map<string, number>()
  #isComplete = false
  #usage: { readonly of: string; readonly answer: Promise<TeamUsage[]>; endedAtMs?: number } | undefined

  constructor(machine: Machine, states: StateStore, holdings: () => Promise<readonly Holding[]>, logger: Logger) {
    this.#machine = machine
    this.#states = states
    this.#holdings = holdings
    this.#logger = logger
  }

  /** Bytes that only this directory holds; 0 while that is not known. */
  own(dir: string): number {
    return this.#own.get(dir) ?? 0
  }

  /** Bytes that a capsule and its checkpoints hold together, without those of its template; `undefined` until measured. */
  family(capsuleId: string): number | undefined {
    return this.#families.get(capsuleId)
  }

  /** What each team holds, from what was measured last; `undefined` until everything was measured once. */
  async usage(): Promise<TeamUsage[] | undefined> {
    if (!this.#isComplete) return undefined
    const holdings = await this.#holdings()
    const of = [...holdings.map(({ dir }) => dir), ...(await this.#states.list(TEMPLATES))].join()
    const { endedAtMs = performance.now() } = this.#usage ?? {}
    if (this.#usage?.of !== of || performance.now() - endedAtMs > USAGE_IS_FRESH_MS) {
      this.#usage = { of, answer: this.#measureUsage(holdings) }
    }
    const usage = this.#usage
    try {
      return await usage.answer
    } finally {
      usage.endedAtMs ??= performance.now()
    }
  }

  async #measureUsage(all: readonly Holding[]): Promise<TeamUsage[]> {
    await this.#fillGap(all)
    const byTeam = groupBy(all, ({ teamId }) => teamId)
    const usage: TeamUsage[] = []
    for (const [teamId, holdings] of byTeam) {
      for (const holding of holdings) {
        if (holding.fixedSinceMs !== undefined && !this.#measured.has(holding.dir)) await this.#measure(holding.dir)
      }
      usage.push({ teamId, bytes: (await Blocks.together(this.#blocksOf(holdings))).bytes })
    }
    return usage
  }

  /**
   * After a removal: measures what was made from it and not measured yet, or without a template that is gone. Its blocks were
   * counted with what was removed, or not at all.
   */
  async #fillGap(holdings: readonly Holding[]): Promise<void> {
    if (await this.#hasLostTemplate()) await this.#measureTemplates()
    if (!this.#hasGap) return
    this.#hasGap = false
    for (const { dir } of holdings) {
      if (this.#measured.get(dir)?.baseVersion !== this.#baseVersion) await this.#measure(dir)
    }
  }

  async #hasLostTemplate(): Promise<boolean> {
    const names = new Set((await this.#states.list(TEMPLATES)).map((name) => `${TEMPLATES}/${name}`))
    return [...this.#templates.keys()].some((dir) => !names.has(dir))
  }

  /** Measures what may have changed since the last time; for the background, a process per file. */
  async measureAll(signal?: AbortSignal): Promise<void> {
    await this.#measureTemplates()
    for (const holding of await this.#holdings()) {
      if (signal?.aborted) return
      if (!this.#isMeasured(holding)) await this.#measure(holding.dir)
    }
    await this.#compare(await this.#holdings())
    this.#hasGap = false
    this.#isComplete = true
    this.#usage = undefined
  }

  /**
   * Measures a state that was just saved. Its source, the files that a guest goes on with, has the same blocks at this moment.
   */
  async measureSaved(dir: string, source: string | undefined): Promise<void> {
    const ownBytes = await this.#measure(dir)
    if (ownBytes === undefined) return
    this.#own.set(dir, ownBytes)
    this.#usage = undefined
    const measured = this.#measured.get(dir)
    if (source !== undefined && measured !== undefined) this.#measured.set(source, measured)
  }

  /** What removing these files would give back, measured now. */
  async freedBy(dir: string): Promise<number> {
    return (await this.#measure(dir)) ?? 0
  }

  /** A directory is gone. */
  forget(dir: string): void {
    this.#hasGap = true
    this.#drop(dir)
  }

  #drop(dir: string): void {
    this.#usage = undefined
    this.#measured.delete(dir)
    this.#own.delete(dir)
  }

  /** Everything of a capsule is gone. */
  forgetCapsule(capsuleId: string): void {
    const prefix = `capsules/${capsuleId}/`
    this.#families.delete(capsuleId)
    for (const dir of [...this.#measured.keys(), ...this.#own.keys()]) if (dir.startsWith(prefix)) this.forget(dir)
  }

  #isMeasured({ dir, fixedSinceMs }: Holding): boolean {
    const measured = this.#measured.get(dir)
    if (measured === undefined || measured.baseVersion !== this.#baseVersion) return false
    return fixedSinceMs !== undefined && measured.startedAtMs >= fixedSinceMs
  }

  #blocksOf(holdings: readonly Holding[]): Blocks[] {
    return holdings.map(({ dir }) => this.#measured.get(dir)?.blocks ?? Blocks.none())
  }

  /** Lays the blocks of each team over each other. */
  async #compare(holdings: readonly Holding[]): Promise<void> {
    const held = new Set(holdings.map(({ dir }) => dir))
    for (const dir of this.#measured.keys()) if (!held.has(dir)) this.#drop(dir)
    for (const ofTeam of groupBy(holdings, ({ teamId }) => teamId).values()) {
      const { own } = await Blocks.together(this.#blocksOf(ofTeam))
      for (const [index, { dir }] of ofTeam.entries()) {
        if (this.#measured.has(dir)) this.#own.set(dir, own[index] ?? 0)
      }
    }
    for (const [capsuleId, ofCapsule] of groupBy(holdings, (holding) => holding.capsuleId)) {
      if (capsuleId === undefined) continue
      this.#families.set(capsuleId, (await Blocks.together(this.#blocksOf(ofCapsule))).bytes)
    }
  }

  async #measureTemplates(): Promise<void> {
    const names = (await this.#states.list(TEMPLATES)).map((name) => `${TEMPLATES}/${name}`)
    const lost = [...this.#templates.keys()].filter((dir) => !names.includes(dir))
    for (const dir of lost) this.#templates.delete(dir)
    let hasChanged = lost.length > 0
    for (const dir of names) {
      if (this.#templates.has(dir)) continue
      const extents = await this.#extentsOf(dir)
      if (extents === undefined) continue
      this.#templates.set(dir, Blocks.of(extents))
      hasChanged = true
    }
    if (!hasChanged) return
    this.#baseVersion += 1
    this.#hasGap ||= lost.length > 0
    this.#base = await Blocks.union([...this.#templates.values()])
  }

  /** Keeps where the files are. @returns what no other file shares, `undefined` when they could not be read */
  async #measure(dir: string): Promise<number | undefined> {
    const startedAtMs = Date.now()
    const extents = await this.#extentsOf(dir)
    if (extents === undefined) {
      this.#drop(dir)
      return undefined
    }
    this.#measured.set(dir, {
      blocks: Blocks.of(extents).minus(this.#base),
      baseVersion: this.#baseVersion,
      startedAtMs,
    })
    return extents.exclusiveBytes
  }

  async #extentsOf(dir: string) {
    try {
      const entries = await readdir(this.#states.path(dir), { withFileTypes: true })
      const names = entries.filter((entry) => entry.isFile()).map(({ name }) => name)
      // What a loader covers is only seen by its other name.
      const isCovered = names.includes(LOADER_FILES.real)
      const own = names.filter((name) => !(isCovered && name === LOADER_FILES.memory))
      return await this.#machine.pool.extents(own.map((name) => join(this.#states.path(dir), name)))
    } catch (error) {
      this.#logger.debug({ dir, error: errorText(error) }, 'files.not_measured') // moved or removed meanwhile
      return undefined
    }
  }
}
