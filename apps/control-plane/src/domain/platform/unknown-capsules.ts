import { AppError } from '@wrenn/base'
import type { Host } from '../../host/host.js'
import type { Hosts } from '../../host/hosts.js'
import { writeAudit } from '../../store/audit.js'
import { findAnyCapsule, findCapsules } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import type { Actor } from '../../store/schema.js'
import { destroyOnHost, truthOf } from '../operations/index.js'
import { PLATFORM_TEAM_ID } from '../people/index.js'

const LIST_TIMEOUT_MS = 5_000

interface UnknownCapsulesDeps {
  readonly db: Db
  readonly host: Hosts
}

/** Capsules that a host has and the database does not know, as after a restore from a backup. Nothing ends them but who says so. */
export class UnknownCapsules {
  readonly #deps: UnknownCapsulesDeps

  constructor(deps: UnknownCapsulesDeps) {
    this.#deps = deps
  }

  /** Their ids, of one host, which is asked first: what is made meanwhile has its record before it has a guest. @throws AppError `host_unavailable` */
  async listOf(host: Host): Promise<string[]> {
    const { db } = this.#deps
    const { capsules } = await host.call((client) => client.listCapsules({}, { timeoutMs: LIST_TIMEOUT_MS }))
    const ids = capsules.map(({ capsuleId }) => capsuleId)
    const known = new Set((await findCapsules(db, ids)).map(({ id }) => id))
    return ids.filter((id) => !known.has(id))
  }

  /** Ends one with all its files. @throws AppError `capsule_not_found`, `host_unavailable`; `conflict` for one that the database knows */
  async destroy(id: string, actor: Actor): Promise<void> {
    const { db } = this.#deps
    const host = await this.#hostOf(id)
    if ((await findAnyCapsule(db, id)) !== undefined) {
      throw new AppError('conflict', `The database knows ${id}: whoever is in its team can destroy it.`)
    }
    const resource = { type: 'capsule', id } as const
    await writeAudit(db, { teamId: PLATFORM_TEAM_ID, actor, action: 'host.destroy_unknown', resource, scope: 'admin' })
    await destroyOnHost(host, id)
  }

  /** No record says where it is: all of them are asked, and one that is away matters only when no other one has it. */
  async #hostOf(id: string): Promise<Host> {
    let away: unknown
    for (const host of this.#deps.host.all) {
      try {
        if ((await truthOf(host, id)) !== undefined) return host
      } catch (error) {
        away ??= error
      }
    }
    throw away ?? new AppError('capsule_not_found', `No host has a capsule ${id}.`)
  }
}
