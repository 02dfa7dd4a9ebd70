import { AppError, errorText, type Logger } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import { addTeamCalls, findTeamCalls } from '../../store/team-calls.js'
import { Rounds } from '../rounds.js'

const MINUTE_MS = 60_000
const TELL_EVERY_MS = 1_000

interface Metered {
  /** In this minute, by all control planes, as the database last said or will. */
  total: number
  /** Counted here and not sent yet. */
  own: number
  /** `undefined` until the database has said it; null is the platform's default, 0 no limit. */
  limit: number | null | undefined
  /** Calls were refused: perhaps the limit is another one by now. */
  isAsked: boolean
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
 * Bounds how often teams call in a minute of the clock. Counts here, without asking anybody, and tells the database once a second: what other
 * control planes let through is known a second later.
 */
export class CallMeter {
  readonly #deps: CallMeterDeps
  readonly #rounds: Rounds
  #minute = 0
  #teams = new Map<string, Metered>()

  constructor(deps: CallMeterDeps) {
    this.#deps = deps
    const onFailure = (error: unknown): void => deps.logger.debug({ error: errorText(error) }, 'call_meter.not_told')
    this.#rounds = new Rounds(() => this.tell(), TELL_EVERY_MS, onFailure)
  }

  start(): void {
    this.#rounds.start()
  }

  async stop(): Promise<void> {
    await this.#rounds.stop()
  }

  /**
   * Counts a call that is about to be answered; one that is refused does not count.
   * @throws AppError `limit_exceeded` with `retryAfterSec`
   */
  async count(teamId: string): Promise<void> {
    const team = this.#metered(teamId)
    // The first call of a team in this process waits until its limit is known.
    if (team.limit === undefined) await this.#tell([[teamId, team]])
    const limit = team.limit ?? this.#deps.defaultLimit
    if (limit > 0 && team.total + team.own >= limit) {
      team.isAsked = true
      throw this.#tooMany(limit, team.total + team.own)
    }
    team.own++
  }

  /** Of this minute, by all control planes, of which the others are heard within a second. */
  async calls(teamId: string): Promise<number> {
    await this.tell()
    return await findTeamCalls(this.#deps.db, teamId, this.#minute)
  }

  /** Tells the database what was counted, and hears what others did. */
  async tell(): Promise<void> {
    this.#turn()
    const news = [...this.#teams].filter(([, { own, isAsked }]) => own > 0 || isAsked)
    if (news.length > 0) await this.#tell(news)
  }

  async #tell(teams: readonly (readonly [string, Metered])[]): Promise<void> {
    const sent = teams.map(([teamId, team]) => ({ teamId, team, calls: team.own }))
    // Sent once, whoever tells meanwhile.
    for (const { team, calls } of sent) move(team, calls)
    try {
      const answer = await addTeamCalls(this.#deps.db, this.#minute, sent)
      const known = new Map(answer.map((each) => [each.teamId, each]))
      for (const { teamId, team } of sent) {
        const said = known.get(teamId)
        // A clock that is behind those of others has nothing to say about their minute.
        team.limit = said === undefined ? (team.limit ?? null) : said.limit
        team.total = Math.max(team.total, said?.calls ?? 0)
        team.isAsked = false
      }
    } catch (error) {
      for (const { team, calls } of sent) move(team, -calls)
      throw error
    }
  }

  #metered(teamId: string): Metered {
    this.#turn()
    const known = this.#teams.get(teamId)
    if (known !== undefined) return known
    const team: Metered = { total: 0, own: 0, limit: undefined, isAsked: false }
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
    for (const [teamId, { total, own, limit }] of before) {
      if (total + own > 0) this.#teams.set(teamId, { total: 0, own: 0, limit, isAsked: false })
    }
  }

  #tooMany(limit: number, used: number): AppError {
    const retryAfterSec = Math.max(1, Math.ceil(((this.#minute + 1) * MINUTE_MS - this.#now()) / 1000))
    return new AppError(
      'limit_exceeded',
      `The team may make ${limit} calls a minute (WRENN_QUOTA_API_CALLS_PER_MIN); try again in ${retryAfterSec} s.`,
      { details: { limit: 'apiCallsPerMin', max: limit, used, retryAfterSec } },
    )
  }

  #now(): number {
    return this.#deps.now?.() ?? Date.now()
  }
}

function move(team: Metered, calls: number): void {
  team.own -= calls
  team.total += calls
}
