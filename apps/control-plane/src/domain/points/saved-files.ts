import { errorText, type Logger } from '@wrenn/base'
import type { Host } from '../../host/host.js'
import {
  type CheckpointFacts,
  listCheckpoints,
  listWithCheckpoints,
  recordCheckpoint,
} from '../../store/checkpoints.js'
import type { Db } from '../../store/database.js'
import type { SnapshotRow } from '../../store/schema.js'
import { listDeletedSnapshots, listHeldSnapshots, patchSnapshot } from '../../store/snapshots.js'
import { checkpointFactsOf, snapshotFactsOf } from '../hosts/index.js'
import type { Snapshots } from './snapshots.js'

const LIST_TIMEOUT_MS = 20_000
/** What is on a host without any checkpoint that is known is seldom surprising, and there may be a million of it. */
const UNSEEN_AT_ONCE = 20

interface SavedFilesDeps {
  readonly db: Db
  readonly host: Host
  readonly snapshots: Snapshots
  readonly logger: Logger
}

/**
 * Compares the checkpoints and snapshots of the database with those of the host. Their sizes and durability follow the host;
 * what the host has too much is told and stays, for it is somebody's data, unless that was deleted: then it goes.
 */
export class SavedFiles {
  readonly #deps: SavedFilesDeps
  readonly #reported = new Set<string>()
  #seen = new Set<string>()

  constructor(deps: SavedFilesDeps) {
    this.#deps = deps
  }

  /** `capsuleIds`: those on the host. Those with checkpoints are looked at each time, the others once, so many at a time. */
  async compare(capsuleIds: readonly string[]): Promise<void> {
    await this.#compareSnapshots()
    const kept = new Set(await listWithCheckpoints(this.#deps.db, capsuleIds))
    const unseen = capsuleIds.filter((id) => !this.#seen.has(id) && !kept.has(id)).slice(0, UNSEEN_AT_ONCE)
    const before = this.#seen
    this.#seen = new Set([...capsuleIds.filter((id) => before.has(id)), ...unseen])
    for (const id of [...kept, ...unseen]) await this.compareCheckpoints(id)
  }

  /** Makes the rows of one capsule and what its host has of checkpoints the same; the host's files follow the rows. */
  async compareCheckpoints(capsuleId: string): Promise<void> {
    const { db, host } = this.#deps
    const rows = await listCheckpoints(db, capsuleId, { all: true })
    const { checkpoints } = await host.call((client) =>
      client.listCheckpoints({ capsuleId }, { timeoutMs: LIST_TIMEOUT_MS }),
    )
    const known = new Map(rows.map((row) => [row.id, row]))
    for (const checkpoint of checkpoints) {
      const { checkpointId } = checkpoint
      const row = known.get(checkpointId)
      const facts = checkpointFactsOf(checkpoint)
      if (row === undefined) this.#reportOnce({ capsuleId, checkpointId }, 'checkpoint.unknown_on_host')
      else if (row.state === 'ready' && differs(row, facts)) await recordCheckpoint(db, checkpointId, facts)
    }
    const held = new Set(checkpoints.map(({ checkpointId }) => checkpointId))
    for (const { id, state } of rows) {
      if (state === 'ready' && !held.has(id)) {
        this.#reportOnce({ capsuleId, checkpointId: id }, 'checkpoint.missing_on_host')
      }
    }
  }

  async #compareSnapshots(): Promise<void> {
    const { db, host, logger, snapshots } = this.#deps
    const rows = new Map((await listHeldSnapshots(db, host.joinedId)).map((row) => [row.id, row]))
    const answer = await host.call((client) => client.listSnapshots({}, { timeoutMs: LIST_TIMEOUT_MS }))
    const unknown: string[] = []
    for (const snapshot of answer.snapshots) {
      const row = rows.get(snapshot.snapshotId)
      const facts = snapshotFactsOf(snapshot)
      if (row === undefined || this.#isElsewhere(row)) {
        unknown.push(snapshot.snapshotId)
        continue
      }
      if (row.state === 'ready' && differs(row, facts)) await patchSnapshot(db, row.id, facts)
      // Of an earlier version's, or made before anybody knew the host.
      if (row.host_id === null && host.id !== undefined) await patchSnapshot(db, row.id, { host_id: host.id })
    }
    // What was still being made when it was to go.
    const late = new Set(await listDeletedSnapshots(db, unknown))
    for (const snapshotId of unknown)
      if (!late.has(snapshotId)) this.#reportOnce({ snapshotId }, 'snapshot.unknown_on_host')
    const deleting = [...rows.values()].filter((row) => row.state === 'deleting' && !this.#isElsewhere(row))
    for (const id of [...late, ...deleting.map((row) => row.id)]) {
      await snapshots.purge({ id }).catch((error: unknown) => {
        logger.warn({ snapshotId: id, error: errorText(error) }, 'snapshot.delete_deferred')
      })
    }
  }

  #isElsewhere({ host_id: hostId }: SnapshotRow): boolean {
    const { joinedId } = this.#deps.host
    return joinedId !== undefined && hostId !== null && hostId !== joinedId
  }

  #reportOnce(what: Readonly<Record<string, string>>, event: string): void {
    const key = `${event} ${Object.values(what).join(' ')}`
    if (this.#reported.has(key)) return
    this.#reported.add(key)
    this.#deps.logger.warn(what, event)
  }
}

function differs(row: CheckpointFacts, facts: CheckpointFacts): boolean {
  const { size_bytes: sizeBytes = row.size_bytes } = facts
  return row.size_bytes !== sizeBytes || row.durable_at?.getTime() !== facts.durable_at?.getTime()
}
