import { AppError } from '@wrenn/base'
import type { CapsuleRef } from '../domain/capsules/index.js'
import { findAnyCapsule } from '../store/capsules.js'
import type { Db } from '../store/database.js'
import type { Notifications } from '../store/notifications.js'

/** Also the channel's name in the trigger of the migration. */
const CHANNEL = 'port_access_changed'
const KEPT = 50_000

/** What must be known of a capsule before anything is sent to it. Whether it runs is not: its host says that. */
export interface Route extends CapsuleRef {
  /** Of a private capsule. */
  readonly token: string | undefined
  /** Opens its guest agent to clients that speak with it themselves: such a capsule is theirs, and answers are in their words. */
  readonly accessToken: string | undefined
}

export interface RoutesDeps {
  readonly db: Db
  readonly notifications: Pick<Notifications, 'isFresh' | 'listen'>
}

/**
 * Knows whose a capsule is and who may reach its ports. Answers are kept, and believed only while the database is heard, as those about
 * API keys are.
 */
export class Routes {
  readonly #deps: RoutesDeps
  readonly #kept = new Map<string, Route>()
  /** Grows with each change; what was read before one is not kept after it. */
  #version = 0

  constructor(deps: RoutesDeps) {
    this.#deps = deps
    deps.notifications.listen(
      CHANNEL,
      (id) => this.forget(id),
      () => this.#forgetAll(),
    )
  }

  /** @throws AppError `capsule_not_found` */
  async get(id: string): Promise<Route> {
    const kept = this.#deps.notifications.isFresh ? this.#kept.get(id) : undefined
    return kept ?? (await this.#load(id))
  }

  /** For who has just changed it and cannot wait to hear of that. */
  forget(id: string): void {
    this.#version++
    this.#kept.delete(id)
  }

  #forgetAll(): void {
    this.#version++
    this.#kept.clear()
  }

  async #load(id: string): Promise<Route> {
    const version = this.#version
    const row = await findAnyCapsule(this.#deps.db, id)
    if (row === undefined) throw new AppError('capsule_not_found', 'There is no such capsule.')
    const route = {
      id,
      teamId: row.team_id,
      token: row.port_token ?? undefined,
      accessToken: row.access_token ?? undefined,
    }
    if (version === this.#version) {
      if (this.#kept.size >= KEPT) this.#kept.clear()
      this.#kept.set(id, route)
    }
    return route
  }
}
