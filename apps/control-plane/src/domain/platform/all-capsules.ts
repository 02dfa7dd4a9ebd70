import type { AnyCapsule, AnyCapsulePage, ListAnyCapsulesQuery } from '@wrenn/protocol'
import { listAllCapsules, type NamedCapsule } from '../../store/all-capsules.js'
import type { Db } from '../../store/database.js'
import { decodeCursor, encodeCursor } from '../operations/index.js'

/** The capsules of all teams, for admins of the platform. */
export class AllCapsules {
  readonly #db: Db

  constructor(db: Db) {
    this.#db = db
  }

  /** A page of those that are not stopped, newest first. @throws AppError `invalid_request` for a cursor that is none */
  async list({ state, team_id: teamId, cursor, limit }: ListAnyCapsulesQuery): Promise<AnyCapsulePage> {
    const beyondSeq = cursor === undefined ? undefined : decodeCursor(cursor)
    const rows = await listAllCapsules(this.#db, { state, teamId, beyondSeq, limit: limit + 1 })
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    return { items: page.map(toAnyCapsule), ...(last === undefined ? {} : { next_cursor: encodeCursor(last.seq) }) }
  }
}

function toAnyCapsule(row: NamedCapsule): AnyCapsule {
  return {
    id: row.id,
    state: row.state,
    team_id: row.team_id,
    team_name: row.teamName,
    template: row.template,
    vcpus: row.vcpus,
    memory_mb: row.memory_mib,
    created_at: row.created_at.toISOString(),
    ...(row.name === null ? {} : { name: row.name }),
    ...(row.host_id === null ? {} : { host_id: row.host_id }),
    ...(row.disk_bytes ? { disk_bytes: row.disk_bytes } : {}),
    ...(row.last_active_at === null ? {} : { last_active_at: row.last_active_at.toISOString() }),
  }
}
