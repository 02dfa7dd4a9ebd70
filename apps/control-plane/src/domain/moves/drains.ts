import { AppError } from '@wrenn/base'
import type { HostDrain } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { beginDrain, dropDrain, findDrain, listDrained, refreshDrained } from '../../store/host-drains.js'
import type { Actor, DrainedCapsuleRow } from '../../store/schema.js'
import { listTemplatesOfHost } from '../../store/snapshots.js'
import { hostEntry, type JoinedHosts } from '../hosts/index.js'
import type { Moves } from './moves.js'

/** Named, each; the counts are of all. */
const MAX_NAMED = 1_000

interface DrainsDeps {
  readonly db: Db
  readonly joinedHosts: Pick<JoinedHosts, 'cordonIn' | 'get'>
  readonly moves: Pick<Moves, 'requireAble'>
}

/** Has hosts emptied, for admins of the platform. The work itself is that of {@link Drainer}. */
export class Drains {
  readonly #deps: DrainsDeps

  constructor(deps: DrainsDeps) {
    this.#deps = deps
  }

  /**
   * Cordons a host, and has all that it has moved off it from now on. One that is being emptied goes on, with that many at once.
   * @throws AppError `host_not_found`, `not_supported` without an object store or key
   */
  async start(hostId: string, concurrency: number, actor: Actor): Promise<HostDrain> {
    const { db, joinedHosts, moves } = this.#deps
    await joinedHosts.get(hostId)
    moves.requireAble()
    await db.transaction().execute(async (tx) => {
      await joinedHosts.cordonIn(tx, hostId, true, actor)
      const isNew = (await findDrain(tx, hostId)) === undefined
      await beginDrain(tx, hostId, { concurrency, actor })
      // The answer tells how much there is to do.
      await refreshDrained(tx, hostId)
      if (isNew) await writeAudit(tx, hostEntry('host.drain', hostId, actor, { concurrency: `${concurrency}` }))
    })
    return await this.get(hostId)
  }

  /** How far it is. @throws AppError `host_not_found`; `not_found` when it is not being emptied */
  async get(hostId: string): Promise<HostDrain> {
    const { db, joinedHosts } = this.#deps
    await joinedHosts.get(hostId)
    const drain = await findDrain(db, hostId)
    if (drain === undefined) throw new AppError('not_found', `${hostId} is not being drained.`)
    const capsules = await listDrained(db, hostId, ['waiting', 'moving', 'done', 'failed'])
    const templates = await listTemplatesOfHost(db, hostId, MAX_NAMED)
    const count = (state: DrainedCapsuleRow['state']): number => capsules.filter((each) => each.state === state).length
    return {
      host_id: hostId,
      state: drain.ended_at === null ? 'draining' : 'drained',
      concurrency: drain.concurrency,
      total: capsules.length,
      done: count('done'),
      moving: count('moving'),
      waiting: count('waiting'),
      failed: count('failed'),
      capsules: [...capsules].sort(byNeed).slice(0, MAX_NAMED).map(toDrained),
      templates: templates.map(({ id, team_id, name }) => ({ id, team_id, name })),
      started_at: drain.started_at.toISOString(),
      ...(drain.ended_at !== null && { ended_at: drain.ended_at.toISOString() }),
    }
  }

  /**
   * Moves nothing more off it; what is on its way comes to its end. The host stays cordoned. One that is not being emptied stays as it is.
   * @throws AppError `host_not_found`
   */
  async stop(hostId: string, actor: Actor): Promise<void> {
    const { db, joinedHosts } = this.#deps
    await joinedHosts.get(hostId)
    await db.transaction().execute(async (tx) => {
      if (await dropDrain(tx, hostId)) await writeAudit(tx, hostEntry('host.stop_drain', hostId, actor))
    })
  }
}

const order = { failed: 0, moving: 1, waiting: 2, done: 3 } as const

/** What somebody must look at first. */
function byNeed(a: DrainedCapsuleRow, b: DrainedCapsuleRow): number {
  return order[a.state] - order[b.state]
}

function toDrained({ capsule_id, team_id, state, error, attempts, operation_id, updated_at }: DrainedCapsuleRow) {
  return {
    ...{ capsule_id, team_id, state, attempts },
    ...(operation_id !== null && { operation_id }),
    ...(error !== null && { error }),
    updated_at: updated_at.toISOString(),
  }
}
