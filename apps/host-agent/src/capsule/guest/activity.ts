import type { AwakeReason } from '@wrenn/protocol'
import type { CapsuleTable, Entry } from '../table.js'
import type { Guest } from './guest.js'

/** A guest that only waits costs about 1 % of a CPU with KVM and up to 4 % without. */
const CPU_THRESHOLD_PCT = 10
/** A sample over less than this says little. */
const MIN_SAMPLE_MS = 1_000
/** A sample over more than this tells of the past. */
const MAX_SAMPLE_MS = 15_000
const GUEST_TIMEOUT_MS = 2_000
const NS_PER_MS = 1e6

/** What a running capsule does, as far as its host sees it. Streams that end at the control plane it knows itself. */
export interface Activity {
  readonly capsuleId: string
  /** Unix time. A look that finds a reason counts as activity. */
  readonly lastActiveAtMs: number
  /** What keeps the capsule awake now; empty: idle. */
  readonly reasons: readonly AwakeReason[]
  /** Percent of one CPU of the host. */
  readonly cpuPct: number
}

interface Sample {
  /** Whose CPU it is: a capsule that slept or went back has another guest, which starts at 0. */
  readonly guest: Guest
  /** By `performance.now()`: the clock of the host may be set. */
  readonly atMs: number
  readonly cpuNs: bigint
}

/** Knows what capsules are doing: the ground for pausing idle ones, and for choosing whom to pause when the host is short. */
export class ActivityTracker {
  readonly #table: CapsuleTable
  readonly #streams = new Map<string, number>()
  readonly #samples = new Map<string, Sample>()

  constructor(table: CapsuleTable) {
    this.#table = table
  }

  /** Counts a stream to or from the capsule until the returned function is called. */
  open(capsuleId: string): () => void {
    this.touch(capsuleId)
    this.#count(capsuleId, 1)
    return () => {
      this.#count(capsuleId, -1)
      this.touch(capsuleId)
    }
  }

  touch(capsuleId: string): void {
    const entry = this.#table.find(capsuleId)
    // Not journaled: a restart of this process counts as activity anyway.
    if (entry !== undefined) entry.record = { ...entry.record, lastActiveAtMs: Date.now() }
  }

  streams(capsuleId: string): number {
    return this.#streams.get(capsuleId) ?? 0
  }

  /** Of the given capsules, or of all; those that do not run are left out. */
  async read(capsuleIds: readonly string[]): Promise<Activity[]> {
    for (const id of this.#samples.keys()) if (this.#table.find(id)?.guest === undefined) this.#samples.delete(id)
    const wanted = capsuleIds.length === 0 ? this.#table.entries() : capsuleIds.map((id) => this.#table.find(id))
    const running = wanted.filter((entry): entry is Entry => entry?.record.state === 'running')
    return await Promise.all(running.map((entry) => this.#read(entry)))
  }

  async #read(entry: Entry): Promise<Activity> {
    const { capsuleId } = entry.record
    const [cpuPct, foreground] = await Promise.all([this.#cpuPct(entry), foregroundProcesses(entry)])
    const found: readonly (readonly [AwakeReason, boolean])[] = [
      ['stream', this.streams(capsuleId) > 0],
      ['process', foreground > 0],
      ['cpu', cpuPct > CPU_THRESHOLD_PCT],
    ]
    const reasons = found.flatMap(([reason, holds]) => (holds ? [reason] : []))
    if (reasons.length > 0) this.touch(capsuleId)
    return { capsuleId, lastActiveAtMs: entry.record.lastActiveAtMs, reasons, cpuPct }
  }

  async #cpuPct(entry: Entry): Promise<number> {
    const before = this.#recent(entry) ?? (await firstSample(entry))
    const now = await sample(entry)
    if (before === undefined || now === undefined || now.guest !== before.guest) return 0
    if (now.atMs - before.atMs >= MIN_SAMPLE_MS) this.#samples.set(entry.record.capsuleId, now)
    const pct = (Number(now.cpuNs - before.cpuNs) / NS_PER_MS / Math.max(1, now.atMs - before.atMs)) * 100
    return Math.round(pct * 10) / 10
  }

  #recent({ record, guest }: Entry): Sample | undefined {
    const found = this.#samples.get(record.capsuleId)
    if (found === undefined || found.guest !== guest) return undefined
    return performance.now() - found.atMs <= MAX_SAMPLE_MS ? found : undefined
  }

  #count(capsuleId: string, change: number): void {
    const count = this.streams(capsuleId) + change
    if (count > 0) this.#streams.set(capsuleId, count)
    else this.#streams.delete(capsuleId)
  }
}

/** A sample that was taken long enough ago to compare another with it. */
async function firstSample(entry: Entry): Promise<Sample | undefined> {
  const first = await sample(entry)
  await new Promise((resolve) => setTimeout(resolve, MIN_SAMPLE_MS))
  return first
}

async function sample({ guest }: Entry): Promise<Sample | undefined> {
  if (guest === undefined) return undefined
  const stats = await guest.vm.stats().catch(() => undefined) // it has just ended
  return stats === undefined ? undefined : { guest, atMs: performance.now(), cpuNs: stats.cpuNs }
}

/** What clients wait for inside the guest. Of one that does not answer in time, its use of the CPU tells. */
async function foregroundProcesses({ guest }: Entry): Promise<number> {
  if (guest === undefined) return 0
  const answer = await guest.client.activity(GUEST_TIMEOUT_MS).catch(() => undefined)
  return answer?.foreground ?? 0
}
