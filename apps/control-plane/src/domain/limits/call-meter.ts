import { setImmediate } from 'node:timers/promises'
import { AppError, errorText, type Logger } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import { bookTeamCalls, findTeamCalls, type TeamCalls } from '../../store/team-calls.js'
import { Rounds } from '../rounds.js'

const MINUTE_MS = 60_000
const TELL_EVERY_MS = 1_000
/** With this part of a block left, the next one is booked, so that nobody waits for it. */
const LOW = 1 / 4
/** Booked calls that a control plane keeps: those of so many rounds like the last one. */
const KEPT_ROUNDS = 2
const MAX_BLOCK = 2 ** 20

/** Of one team in one minute. */
interface Metered {
  /** Booked at the database and not made yet. Below 0: made and not told yet, where nothing limits them. */
  credit: number
  /** Of all control planes, made or booked, as the database last said. */
  total: number
  /** 0: none; `undefined` until the database has said it. */
  limit: number | undefined
  /** All calls of the minute are booked. */
  isFull: boolean
  /** Since the last round calls were refused: perhaps others have given some back, or the limit is another one by now. */
  isRefused: boolean
  /** Made since the last round. */
  made: number
  /** How many are booked at a time; twice as many each time, and after a round as many as that round took. */
  block: number
  low: number
  /** Calls that wait for the next booking. */
  waiting: number
  booking: Promise<void> | undefined
}

interface CallMeterDeps {
  readonly db: Db
  readonly logger: Logger
  /** Of a team that has no limit of its own or of a plan; 0: no limit. */
  readonly defaultLimit: number
  /** @default the clock of the machine */
  readonly now?: () => number
}

/**
 * Bounds how often teams call in a minute of the clock, however many control planes they ask. Where there is a limit, a control plane books
 * calls at the database before it lets them through, some at a time, and once a second gives back what it does not need. Where there is none
 * it counts, and tells the database once a second.
 */
export class CallMeter {
  readonly #deps: CallMeterDeps
  readonly #rounds: Rounds
  #minute = 0
  #teams = new Map<string, Metered>()

  constructor(deps: CallMeterDeps) {
    this.#deps = deps
    this.#rounds = new Rounds(
      () => this.tell(),
      TELL_EVERY_MS,
      (error) => this.#notTold(error),
    )
  }

  start(): void {
    this.#rounds.start()
  }

  /** Gives back what it has booked. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
    const booked = [...this.#teams].filter(([, { credit }]) => credit !== 0)
    await this.#tell(booked, () => 0).catch((error: unknown) => this.#notTold(error))
  }

  /**
   * Counts a call that is about to be answered; one that is refused does not count.
   * @throws AppError `limit_exceeded` with `retryAfterSec`
   */
  async count(teamId: string): Promise<void> {
    for (;;) {
      const team = this.#metered(teamId)
      if (team.limit === 0 || team.credit > 0) {
        this.#take(teamId, team)
        return
      }
      if (team.isFull) {
        team.isRefused = true
        throw this.#tooMany(team)
      }
      team.waiting++
      await this.#booked(teamId, team)
    }
  }

  /** Of this minute, by all control planes; what others have booked and not made yet is among them. */
  async calls(teamId: string): Promise<number> {
    this.#turn()
    const team = this.#teams.get(teamId)
    if (team !== undefined) await this.#tell([[teamId, team]], () => 0)
    return await findTeamCalls(this.#deps.db, teamId, this.#minute)
  }

  /** Tells the database what was counted, gives back what is not needed, and hears of limits that have changed. */
  async tell(): Promise<void> {
    this.#turn()
    const news = [...this.#teams].filter(([, { credit, made, isRefused }]) => credit !== 0 || made > 0 || isRefused)
    if (news.length > 0) await this.#tell(news, keptOf)
    for (const [, team] of news) {
      team.block = Math.max(1, team.made)
      team.made = 0
    }
  }

  #take(teamId: string, team: Metered): void {
    team.credit--
    team.made++
    if (team.limit === 0 || team.credit >= team.low || team.booking !== undefined) return
    this.#booked(teamId, team).catch((error: unknown) => this.#notTold(error))
  }

  #booked(teamId: string, team: Metered): Promise<void> {
    team.booking ??= this.#book(teamId, team).finally(() => {
      team.booking = undefined
    })
    return team.booking
  }

  async #book(teamId: string, team: Metered): Promise<void> {
    const minute = this.#minute
    // Those that come at once are booked at once.
    await setImmediate()
    const booking = { teamId, calls: settled(team, Math.max(0, team.credit)), needed: team.waiting, wanted: team.block }
    team.waiting = 0
    team.block = Math.min(2 * team.block, MAX_BLOCK)
    await this.#send(minute, [{ ...booking, team }])
  }

  async #tell(teams: readonly (readonly [string, Metered])[], keep: (team: Metered) => number): Promise<void> {
    const bookings = teams.map(([teamId, team]) => {
      const needed = team.isRefused ? 1 : 0
      team.isRefused = false
      return { teamId, team, calls: settled(team, keep(team)), needed, wanted: 0 }
    })
    if (bookings.length > 0) await this.#send(this.#minute, bookings)
  }

  async #send(minute: number, bookings: readonly Booking[]): Promise<void> {
    const { db, defaultLimit } = this.#deps
    try {
      const answer = await bookTeamCalls(db, minute, defaultLimit, bookings)
      const known = new Map(answer.map((each) => [each.teamId, each]))
      for (const booking of bookings) hear(booking, known.get(booking.teamId))
    } catch (error) {
      for (const { team, calls } of bookings) team.credit -= calls
      throw error
    }
  }

  #metered(teamId: string): Metered {
    this.#turn()
    const known = this.#teams.get(teamId)
    if (known !== undefined) return known
    const team = begun(undefined, 1)
    this.#teams.set(teamId, team)
    return team
  }

  /** With each minute all begin anew; who did not call in the last one is forgotten. */
  #turn(): void {
    const minute = Math.floor(this.#now() / MINUTE_MS)
    if (minute === this.#minute) return
    const before = this.#teams
    this.#minute = minute
    this.#teams = new Map()
    for (const [teamId, { total, made, limit, block }] of before) {
      if (total > 0 || made > 0) this.#teams.set(teamId, begun(limit, block))
    }
  }

  #tooMany({ limit = 0, total }: Metered): AppError {
    const retryAfterSec = Math.max(1, Math.ceil(((this.#minute + 1) * MINUTE_MS - this.#now()) / 1000))
    return new AppError(
      'limit_exceeded',
      `The team may make ${limit} calls a minute (WRENN_QUOTA_API_CALLS_PER_MIN); try again in ${retryAfterSec} s.`,
      { details: { limit: 'apiCallsPerMin', max: limit, used: total, retryAfterSec } },
    )
  }

  #notTold(error: unknown): void {
    this.#deps.logger.debug({ error: errorText(error) }, 'call_meter.not_told')
  }

  #now(): number {
    return this.#deps.now?.() ?? Date.now()
  }
}

interface Booking {
  readonly teamId: string
  readonly team: Metered
  readonly calls: number
  readonly needed: number
  readonly wanted: number
}

function begun(limit: number | undefined, block: number): Metered {
  const counts = { credit: 0, total: 0, made: 0, low: 0, waiting: 0 }
  return { ...counts, limit, block, isFull: false, isRefused: false, booking: undefined }
}

/** What a round leaves: nothing where there is no limit, or a lower one than before. */
function keptOf({ limit, total, credit, made }: Metered): number {
  if (limit === undefined || limit === 0 || total > limit) return 0
  return Math.max(0, Math.min(credit, KEPT_ROUNDS * made))
}

/** @returns what the database must add so that only `kept` booked calls are left; told once, whoever tells meanwhile */
function settled(team: Metered, kept: number): number {
  const calls = kept - team.credit
  team.credit = kept
  return calls
}

/** @param said `undefined` of a team that is gone: others refuse it */
function hear({ team, needed, wanted }: Booking, said: TeamCalls | undefined): void {
  const limit = said?.limit ?? team.limit ?? 0
  // A clock that is behind those of others counts for itself until it is in their minute.
  const alone = limit === 0 ? 0 : Math.max(0, Math.min(limit - team.total, Math.max(needed, wanted)))
  const granted = said?.granted ?? alone
  team.limit = limit
  team.total = said?.calls ?? team.total + granted
  team.credit += granted
  team.low = Math.floor(granted * LOW)
  if (limit === 0 || granted > 0) team.isFull = false
  else if (needed > 0) team.isFull = true
}
