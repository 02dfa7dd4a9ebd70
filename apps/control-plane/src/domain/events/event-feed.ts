import { AppError } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import { type EventPlace, type EventsAfter, listEvents } from '../../store/events.js'
import type { Notifications } from '../../store/notifications.js'
import type { Principal } from '../accounts/index.js'
import { Follower } from './follower.js'
import { BEAT_MS, MAX_FOLLOWERS, PAGE } from './limits.js'
import { decodeCursor } from './place.js'

/** Also the channel's name in the trigger of the migration. */
const CHANNEL = 'team_event'
/** Where notifications do not come through (a pooler in between), events still do, only later. */
const LOOK_EVERY_MS = 2_000

interface EventFeedDeps {
  readonly db: Db
  readonly notifications: Pick<Notifications, 'listen' | 'isFresh'>
  /** @default 15 000 */
  readonly beatMs?: number
}

interface Team {
  readonly followers: Set<Follower>
  /** Grows with each change: a read that began before one is nobody's who has heard of it. */
  version: number
}

/**
 * Lets people follow what happens in their teams. Events are written in the transactions of the changes that they tell of, read from the
 * database in pages, each follower at its own pace; those at the same place share one read.
 */
export class EventFeed {
  readonly #deps: EventFeedDeps
  readonly #teams = new Map<string, Team>()
  readonly #reads = new Map<string, Promise<EventsAfter>>()
  #stopped = false

  constructor(deps: EventFeedDeps) {
    this.#deps = deps
    deps.notifications.listen(
      CHANNEL,
      (teamId) => this.#wake(teamId),
      () => {
        for (const teamId of this.#teams.keys()) this.#wake(teamId)
      },
    )
  }

  /**
   * Begins to follow the team of `principal`, after the event with the id `after`, or from now on. The caller disposes it.
   * @throws AppError `invalid_request`, `limit_exceeded`, `host_unavailable` while the control plane stops
   */
  follow(principal: Principal, after: string | undefined): Follower {
    if (this.#stopped) throw new AppError('host_unavailable', 'The control plane is stopping.')
    const { teamId } = principal
    const cursor = after === undefined ? undefined : decodeCursor(after)
    const team = this.#teams.get(teamId) ?? { followers: new Set<Follower>(), version: 0 }
    if (team.followers.size >= MAX_FOLLOWERS) {
      const message = `Your team follows its events ${MAX_FOLLOWERS} times already, as often as it may; end some of them.`
      throw new AppError('limit_exceeded', message, { details: { max: MAX_FOLLOWERS } })
    }
    const { db, notifications, beatMs = BEAT_MS } = this.#deps
    const follower = new Follower({
      db,
      principal,
      cursor,
      beatMs,
      read: (place) => this.#read(teamId, team.version, place),
      patienceMs: () => (notifications.isFresh ? beatMs : Math.min(beatMs, LOOK_EVERY_MS)),
      onEnd: () => {
        team.followers.delete(follower)
        if (team.followers.size === 0) this.#teams.delete(teamId)
      },
    })
    team.followers.add(follower)
    this.#teams.set(teamId, team)
    return follower
  }

  /** Ends all streams; clients come back by themselves. */
  stop(): void {
    this.#stopped = true
    for (const { followers } of this.#teams.values()) for (const each of [...followers]) each[Symbol.dispose]()
  }

  #wake(teamId: string): void {
    const team = this.#teams.get(teamId)
    if (team === undefined) return
    team.version++
    for (const follower of team.followers) follower.wake()
  }

  async #read(teamId: string, version: number, place: EventPlace): Promise<EventsAfter> {
    const key = `${teamId} ${version} ${place.xid}-${place.id}`
    const running = this.#reads.get(key)
    if (running !== undefined) return await running
    const reading = listEvents(this.#deps.db, teamId, place, PAGE).finally(() => this.#reads.delete(key))
    this.#reads.set(key, reading)
    return await reading
  }
}
