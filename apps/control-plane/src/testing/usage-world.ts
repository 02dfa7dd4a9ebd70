import { type CapsuleState, capsuleCommands, heldIn, nextState } from '@wrenn/protocol'
import { sql } from 'kysely'
import type { Db } from '../store/database.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
/** As the roll-up has it. */
const GRACE = 60 * SECOND
const MEMORY = [128, 512, 777, 2_048, 16_384]
const DISK = [64, 1_024, 5_120]

/** A change of a capsule. */
interface Change {
  readonly id: string
  /** What the database's clock says. */
  readonly atMs: number
  readonly state: CapsuleState
  /** Its transaction is not committed, as if whoever made it was killed. */
  readonly isLost: boolean
  readonly isNew: boolean
}

/** A capsule of the simulation. */
export interface Simulated {
  readonly id: string
  readonly teamId: string
  readonly template: string
  readonly vcpus: number
  readonly memoryMib: number
  readonly diskMib: number
  /** What the ledger has to say of it, made without the ledger. */
  readonly entries: { readonly state: CapsuleState; readonly beganMs: number; endedMs: number | undefined }[]
}

/** What is simulated. */
export interface WorldOptions {
  readonly db: Db
  readonly random: () => number
  readonly teamIds: readonly string[]
  readonly capsules: number
  readonly days: number
  /** On average, of one capsule in all days. */
  readonly changes: number
  /** Whether the database's own clock is set now and then. */
  readonly hasClockSteps: boolean
  /** At the end of each day, before its changes are forgotten; the clock is what it is then. */
  readonly onDay?: (day: number) => Promise<void>
}

/** Begin of the first day. */
export const WORLD_BEGIN = Date.UTC(2026, 0, 30)

/**
 * Capsules that live through some days in a database whose ledger goes by a clock of ours. Beside them, what they held is kept as plain lists:
 * what the ledger must come to.
 */
export class UsageWorld {
  readonly capsules: Simulated[] = []
  readonly #options: WorldOptions
  readonly #states = new Map<string, CapsuleState>()
  /** How far the database's clock is ahead. */
  #aheadMs = 0
  #closedMs = WORLD_BEGIN

  constructor(options: WorldOptions) {
    this.#options = options
  }

  /** What the database's clock says at the end. */
  get nowMs(): number {
    return Math.max(this.#closedMs, WORLD_BEGIN + this.#options.days * DAY + GRACE + SECOND + this.#aheadMs)
  }

  /** Puts our clock in the place of the database's. */
  async prepare(): Promise<void> {
    const { db } = this.#options
    await sql`CREATE TABLE test_clock (at timestamptz NOT NULL)`.execute(db)
    await sql`INSERT INTO test_clock VALUES (${new Date(WORLD_BEGIN)})`.execute(db)
    await sql`CREATE OR REPLACE FUNCTION usage_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
      SELECT coalesce(nullif(current_setting('wrenn.test_clock', true), '')::timestamptz, (SELECT at FROM test_clock)) $$`.execute(
      db,
    )
    await sql`UPDATE usage_state SET closed_until = ${new Date(WORLD_BEGIN)}, rolled_until = '2026-01-30', kept_from = '2026-01-30'`.execute(
      db,
    )
    await sql`CREATE FUNCTION test_changes(changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
      DECLARE
        c record;
      BEGIN
        FOR c IN SELECT * FROM jsonb_to_recordset(changes) AS (id text, at text, state text, lost boolean, row jsonb) LOOP
          PERFORM set_config('wrenn.test_clock', c.at, true);
          BEGIN
            IF c.row IS NULL THEN UPDATE capsules SET state = c.state WHERE id = c.id;
            ELSE INSERT INTO capsules (id, team_id, template, vcpus, memory_mib, disk_size_mib, state, desired_state)
              SELECT c.id, r.team, r.template, r.vcpus, r.memory, r.disk, c.state, 'running'
              FROM jsonb_to_record(c.row) AS r (team text, template text, vcpus int, memory int, disk int);
            END IF;
            IF c.lost THEN RAISE EXCEPTION USING ERRCODE = 'WR000'; END IF;
          EXCEPTION WHEN SQLSTATE 'WR000' THEN NULL;
          END;
        END LOOP;
      END $$`.execute(db)
  }

  /** All days, one after the other. */
  async run(): Promise<void> {
    const { db, days, onDay } = this.#options
    for (let day = 0; day < days; day++) {
      const changes = this.#day(day)
      const told = changes.map((change) => this.#tell(change))
      for (let from = 0; from < told.length; from += 2_000) {
        const some = JSON.stringify(told.slice(from, from + 2_000))
        await db.transaction().execute(async (tx) => {
          await sql`SET LOCAL statement_timeout = 0`.execute(tx)
          await sql`SELECT test_changes(${some}::jsonb)`.execute(tx)
        })
      }
      const midnight = WORLD_BEGIN + (day + 1) * DAY
      await this.#setClock(midnight + GRACE + SECOND + this.#aheadMs)
      await onDay?.(day)
      this.#closedMs = Math.max(this.#closedMs, Math.floor((midnight + SECOND + this.#aheadMs) / DAY) * DAY)
    }
  }

  async #setClock(atMs: number): Promise<void> {
    await sql`UPDATE test_clock SET at = ${new Date(atMs)}`.execute(this.#options.db)
  }

  /** Changes of a day in the order of their true times. */
  #day(day: number): Change[] {
    const { random, capsules, changes, days } = this.#options
    // Nothing happens between midnight and the roll-up of the day before: that has its own test.
    const begin = WORLD_BEGIN + day * DAY + (day === 0 ? 0 : GRACE + 2 * SECOND)
    const length = WORLD_BEGIN + (day + 1) * DAY - begin
    const count = Math.round((capsules * changes) / days)
    const times = Array.from({ length: count }, () => {
      const at = Math.floor(random() * length)
      // Some at the very last moment of a day, or all at once.
      return begin + (random() < 0.01 ? length - 1 : random() < 0.05 ? Math.floor(at / HOUR) * HOUR : at)
    }).sort((a, b) => a - b)
    return times.map((time) => {
      if (this.#options.hasClockSteps && random() < 3 / count) this.#aheadMs = this.#step()
      return this.#change(time + this.#aheadMs, capsules)
    })
  }

  /** Where the clock is set to; most steps are small. */
  #step(): number {
    const { random } = this.#options
    const sizes = [SECOND, 30 * SECOND, 10 * MINUTE, 2 * HOUR]
    const size = sizes[Math.floor(random() * sizes.length)] ?? 0
    return Math.round((random() * 2 - 1) * size)
  }

  #change(atMs: number, most: number): Change {
    const { random } = this.#options
    const isLost = random() < 0.02
    if (this.capsules.length < most && random() < 0.2 + 0.8 * Number(this.capsules.length === 0)) {
      const capsule = this.#capsule()
      return this.#apply(capsule, { id: capsule.id, atMs, state: 'pending', isLost, isNew: true })
    }
    const capsule = this.capsules[Math.floor(random() * this.capsules.length)]
    if (capsule === undefined) throw new Error('there are capsules')
    const state = this.#states.get(capsule.id)
    if (state === undefined)
      return this.#apply(capsule, { id: capsule.id, atMs, state: 'pending', isLost, isNew: true })
    // Destroying is legal nearly everywhere: else nothing would live long.
    const possible = capsuleCommands.filter((command) => command !== 'destroy' || random() < 0.05)
    const next = possible.flatMap((command) => nextState(state, command) ?? [])
    return this.#apply(capsule, {
      ...{ id: capsule.id, atMs, isLost, isNew: false },
      state: next[Math.floor(random() * next.length)] ?? state,
    })
  }

  #capsule(): Simulated {
    const { random, teamIds } = this.#options
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T // of a list that is not empty
    const capsule = {
      ...{ id: `cl-${String(this.capsules.length).padStart(25, '0')}`, teamId: pick(teamIds), entries: [] },
      ...{ template: pick(['minimal', 'own']), vcpus: 1 + Math.floor(random() * 8) },
      ...{ memoryMib: pick(MEMORY), diskMib: pick(DISK) },
    }
    this.capsules.push(capsule)
    return capsule
  }

  /** Writes what the ledger has to say then. */
  #apply(capsule: Simulated, change: Change): Change {
    if (change.isLost) return change
    this.#states.set(capsule.id, change.state)
    const last = capsule.entries.at(-1)
    if (last?.state === change.state && !change.isNew) return change
    const open = last?.endedMs === undefined ? last : undefined
    const at = Math.max(change.atMs, this.#closedMs, open?.beganMs ?? 0)
    if (open !== undefined) open.endedMs = at
    if (change.state !== 'stopped') capsule.entries.push({ state: change.state, beganMs: at, endedMs: undefined })
    return change
  }

  #tell({ id, atMs, state, isLost, isNew }: Change): object {
    const capsule = this.capsules[Number(id.slice(3))]
    const row = {
      ...{ team: capsule?.teamId, template: capsule?.template, vcpus: capsule?.vcpus },
      ...{ memory: capsule?.memoryMib, disk: capsule?.diskMib },
    }
    return { id, at: new Date(atMs).toISOString(), state, lost: isLost, row: isNew ? row : null }
  }

  /** What was held by team, day and template, in thousandths: `team day template` to vCPU, memory, saved memory and disk seconds. */
  integral(): Map<string, [bigint, bigint, bigint, bigint]> {
    const sums = new Map<string, [bigint, bigint, bigint, bigint]>()
    for (const capsule of this.capsules) {
      for (const { state, beganMs, endedMs = this.nowMs } of capsule.entries) {
        const held = heldOf(state)
        if (held === undefined) continue
        for (let day = Math.floor(beganMs / DAY) * DAY; day < endedMs; day += DAY) {
          const ms = BigInt(Math.min(endedMs, day + DAY) - Math.max(beganMs, day))
          if (ms <= 0n) continue
          const key = `${capsule.teamId} ${new Date(day).toISOString().slice(0, 10)} ${capsule.template}`
          const sum = sums.get(key) ?? [0n, 0n, 0n, 0n]
          if (held === 'awake') sum[0] += BigInt(capsule.vcpus) * ms
          if (held === 'awake') sum[1] += BigInt(capsule.memoryMib) * ms
          if (held === 'asleep') sum[2] += BigInt(capsule.memoryMib) * ms
          sum[3] += BigInt(capsule.diskMib) * ms
          sums.set(key, sum)
        }
      }
    }
    return sums
  }

  /** The most that a team's capsules held at any time from one to before another. */
  highest(teamId: string, fromMs: number, toMs: number): { running: number; vcpus: number; memoryMib: number } {
    const ofTeam = this.capsules.filter((capsule) => capsule.teamId === teamId)
    const times = ofTeam.flatMap(({ entries }) => entries.map(({ beganMs }) => beganMs))
    const looked = [fromMs, ...times.filter((at) => at > fromMs && at < toMs)]
    const ends = ofTeam.flatMap(({ entries }) => entries.flatMap(({ endedMs }) => endedMs ?? []))
    const most = { running: 0, vcpus: 0, memoryMib: 0 }
    for (const at of new Set([...looked, ...ends.filter((end) => end > fromMs && end < toMs)])) {
      const held = ofTeam.flatMap((capsule) =>
        capsule.entries
          .filter(({ beganMs, endedMs }) => beganMs <= at && (endedMs === undefined || endedMs > at))
          .map(({ state }) => ({ ...capsule, holding: heldOf(state) })),
      )
      const awake = held.filter(({ holding }) => holding === 'awake')
      const asleep = held.filter(({ holding }) => holding === 'asleep')
      most.running = Math.max(most.running, awake.length)
      most.vcpus = Math.max(most.vcpus, added(awake.map(({ vcpus }) => vcpus)))
      most.memoryMib = Math.max(
        most.memoryMib,
        added([...awake.map(({ memoryMib }) => memoryMib), ...asleep.map(({ memoryMib }) => Math.ceil(memoryMib / 2))]),
      )
    }
    return most
  }
}

function heldOf(state: CapsuleState): string | undefined {
  const held: Partial<Record<CapsuleState, string>> = heldIn
  return held[state]
}

function added(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0)
}
