import { type Event, permissionForEvent } from '@wrenn/protocol'
import type { Db } from '../../store/database.js'
import { countEvents, currentEventPlace, type EventPlace, type EventsAfter, hasReached } from '../../store/events.js'
import type { EventRow } from '../../store/schema.js'
import type { Principal } from '../accounts/index.js'
import { CURSOR_MS, MAX_BEHIND, PAGE } from './limits.js'
import { type Cursor, encodeCursor, teamMark } from './place.js'

/** After this long it is looked again for events that may not be told yet, then less and less often. */
const HELD_MS = 20
const MAX_HELD_MS = 1_000

interface FollowerDeps {
  readonly db: Db
  readonly principal: Principal
  /** `undefined`: from now on. */
  readonly cursor: Cursor | undefined
  readonly beatMs: number
  readonly read: (place: EventPlace) => Promise<EventsAfter>
  /** How long a change may stay unheard of. */
  readonly patienceMs: () => number
  readonly onEnd: () => void
}

/** One stream of events of a team, for somebody who sees some of them. */
export class Follower implements Disposable {
  readonly #deps: FollowerDeps
  readonly #team: string
  #isOver = false
  #isStale = false
  #wake: () => void = () => {}

  constructor(deps: FollowerDeps) {
    this.#deps = deps
    this.#team = teamMark(deps.principal.teamId)
  }

  /** There may be more to read. */
  wake(): void {
    this.#isStale = true
    this.#wake()
  }

  /** Ends the stream, after the page that is under way. */
  [Symbol.dispose](): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#deps.onEnd()
    this.wake()
  }

  /** Pages of events as they come, until it is disposed; an empty one says only that the stream is alive. */
  async *pages(): AsyncGenerator<readonly Event[], void> {
    const { beatMs, read } = this.#deps
    const { mark, ...first } = await this.#begin()
    let place: EventPlace = first
    if (mark !== undefined) yield [mark]
    let saidAt = performance.now()
    let heldMs = HELD_MS
    while (!this.#isOver) {
      this.#isStale = false
      const { events, isHeld } = await read(place)
      place = events.at(-1) ?? place
      const seen = events.filter((event) => this.#mayBeTold(event)).map((event) => this.#toEvent(event))
      const isFull = events.length === PAGE
      if (seen.length > 0 || performance.now() - saidAt >= beatMs) {
        saidAt = performance.now()
        yield seen
      }
      if (isFull) {
        if (!(await this.#isFarBehind(place))) continue
        const { mark, ...from } = await this.#mark('relist')
        place = from
        yield [mark]
        continue
      }
      heldMs = isHeld ? Math.min(heldMs * 2, MAX_HELD_MS) : HELD_MS
      await this.#change(isHeld ? heldMs : Math.max(0, saidAt + beatMs - performance.now()))
    }
  }

  /** Where to begin, and what is told of it. */
  async #begin(): Promise<EventPlace & { readonly mark?: Event | undefined }> {
    const { db, cursor } = this.#deps
    if (cursor === undefined) return await this.#mark('ready')
    const isOurs = cursor.team === this.#team && Date.now() - cursor.atMs < CURSOR_MS
    const isKnown = isOurs && (await hasReached(db, cursor))
    return isKnown && !(await this.#isFarBehind(cursor)) ? cursor : await this.#mark('relist')
  }

  async #isFarBehind(place: EventPlace): Promise<boolean> {
    const { db, principal } = this.#deps
    return (await countEvents(db, principal.teamId, place, MAX_BEHIND + 1)) > MAX_BEHIND
  }

  async #mark(type: 'ready' | 'relist'): Promise<EventPlace & { readonly mark: Event }> {
    const { db, principal } = this.#deps
    const place = await currentEventPlace(db)
    const at = new Date()
    const id = encodeCursor({ ...place, atMs: at.getTime(), team: this.#team })
    const mark = { id, type, at: at.toISOString(), team_id: principal.teamId, resource_id: '', data: {} }
    return { ...place, mark }
  }

  #mayBeTold({ type }: EventRow): boolean {
    const permission = permissionForEvent(type)
    return permission !== undefined && this.#deps.principal.permissions.has(permission)
  }

  #toEvent({ xid, id, at, type, team_id, resource_id, data }: EventRow): Event {
    return {
      id: encodeCursor({ xid, id, atMs: at.getTime(), team: this.#team }),
      type,
      at: at.toISOString(),
      team_id,
      resource_id,
      data,
    }
  }

  async #change(ms: number): Promise<void> {
    if (this.#isStale) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.min(ms, this.#deps.patienceMs()))
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}
