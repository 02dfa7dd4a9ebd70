import { randomBytes } from 'node:crypto'
import { AppError, errorText, type Logger, snapshotIds } from '@wrenn/base'
import type { CreateSnapshotInput, Template } from '@wrenn/protocol'
import type { Insertable } from 'kysely'
import { writeAudit } from '../../store/audit.js'
import { transition } from '../../store/capsules.js'
import type { Actor, CapsuleRow, OperationRow, SnapshotRow, SnapshotsTable } from '../../store/schema.js'
import {
  findSnapshot,
  findSnapshotByName,
  findSnapshots,
  findStarting,
  insertSnapshot,
  listSnapshots,
  lockSnapshot,
  patchSnapshot,
  type SnapshotFilter,
} from '../../store/snapshots.js'
import { dropTags, isTagged } from '../../store/template-tags.js'
import {
  type CapsuleRef,
  holdCheckpoint,
  type LifecycleDeps,
  needCapsule,
  needLegal,
  type RequestOptions,
} from '../capsules/index.js'
import { reserveSpace } from '../limits/index.js'
import {
  decodeCursor,
  encodeCursor,
  hashJson,
  insertNew,
  resultOf,
  type Submission,
  submit,
} from '../operations/index.js'
import { purgeSnapshot } from './purge-snapshot.js'
import { type OpenedTemplateArchive, openTemplateArchive } from './template-archive.js'
import { platformTemplate, snapshotTemplate } from './template-view.js'

interface SnapshotsDeps extends LifecycleDeps {
  readonly logger: Logger
}

interface RequestedSnapshot {
  readonly template: Template
  /** Whether capsules can be created from it. */
  readonly isReady: boolean
}

/** Which snapshots, and from where on. */
interface PageQuery extends Omit<SnapshotFilter, 'beforeSeq'> {
  readonly cursor: string | undefined
}

interface KeepOptions {
  /** The build that it is for. */
  readonly buildId: string
  readonly waitMs: number
}

type NamedSnapshot = Pick<Insertable<SnapshotsTable>, 'name'> &
  Partial<Pick<Insertable<SnapshotsTable>, 'id' | 'hidden' | 'build_id'>>

interface SnapshotPage {
  readonly names: readonly string[]
  readonly nextCursor: string | undefined
}

/** What capsules are created from: built-in templates, and a team's own snapshots. */
export class Snapshots {
  readonly #deps: SnapshotsDeps

  constructor(deps: SnapshotsDeps) {
    this.#deps = deps
  }

  /**
   * Makes a template of a running or paused capsule, which stays as it was: as it is, or as it was at a checkpoint of it.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `invalid_state`, `name_reserved`, `template_name_taken`, `pool_exhausted`,
   * `idempotency_mismatch`, or why it failed
   */
  async create(teamId: string, input: CreateSnapshotInput, options: RequestOptions): Promise<RequestedSnapshot> {
    const { db, operations } = this.#deps
    const capsuleId = input.capsule_id ?? input.sandbox_id ?? ''
    const submission = {
      teamId,
      kind: 'snapshot',
      hash: hashJson({ capsuleId, name: input.name, checkpoint: input.checkpoint }),
      key: options.idempotencyKey,
      actor: options.actor,
    } as const
    if (input.name !== undefined) await this.#refuseReserved(input.name)
    const name = input.name ?? `template-${randomBytes(4).toString('hex')}`
    const operation = await this.#submit(submission, capsuleId, { name }, input.checkpoint)
    const result = await resultOf(operations, operation, options.waitMs)
    // The executor wrote it in this form.
    if (result !== undefined) return { template: result.template as Template, isReady: true }
    const drafted = await findSnapshot(db, String(operation.params?.snapshotId))
    if (drafted === undefined || drafted.deleted_at !== null)
      throw new AppError('template_not_found', `The snapshot ${name} was given up.`)
    return { template: snapshotTemplate(drafted), isReady: false }
  }

  /**
   * Makes a snapshot that the platform keeps for itself: it is not listed and its name is its id. Waits for its end.
   * @throws AppError `capsule_not_found`, `invalid_state`, `pool_exhausted`, `timeout`, or why it failed
   */
  async keep({ teamId, id: capsuleId }: CapsuleRef, { buildId, waitMs }: KeepOptions): Promise<SnapshotRow> {
    const submission = { teamId, kind: 'snapshot', hash: hashJson({ capsuleId, buildId }), key: undefined } as const
    const id = snapshotIds.create()
    const operation = await this.#submit(submission, capsuleId, { id, name: id, hidden: true, build_id: buildId })
    const result = await resultOf(this.#deps.operations, operation, waitMs)
    const row = await findSnapshot(this.#deps.db, id)
    if (result === undefined || row === undefined) throw new AppError('timeout', 'The snapshot is still being made.')
    return row
  }

  async #submit(
    submission: Submission,
    capsuleId: string,
    named: NamedSnapshot,
    checkpoint?: string,
  ): Promise<OperationRow> {
    const { limits } = this.#deps
    const { teamId } = submission
    return await submit(this.#deps, submission, async (tx) => {
      const row = await needCapsule(tx, teamId, capsuleId)
      needLegal(row, 'snapshot')
      await reserveSpace(tx, teamId, limits)
      const moved = await transition(tx, row, 'snapshot')
      if (moved === undefined) return undefined
      // What capsules of its template run as, those made of the snapshot do, too.
      const source = moved.snapshot_id === null ? undefined : await findSnapshot(tx, moved.snapshot_id)
      const defaults = source?.defaults ? JSON.stringify(source.defaults) : null
      const snapshot = await insertSnapshot(tx, { ...draft(moved), defaults, ...named })
      if (snapshot === undefined)
        throw new AppError('template_name_taken', `There is a snapshot ${named.name} already.`)
      const point = checkpoint === undefined ? undefined : await holdCheckpoint(tx, moved.id, checkpoint)
      const params = { snapshotId: snapshot.id, ...(point && { checkpointId: point.id }) }
      return await insertNew(tx, submission, moved, params)
    })
  }

  /** Removes a snapshot that the platform kept for itself, unless a capsule is being created from it or a tag stands for it. @returns whether it did */
  async discard(id: string): Promise<boolean> {
    const isRetired = await this.#deps.db.transaction().execute(async (tx) => {
      const held = await lockSnapshot(tx, id)
      if (held?.state !== 'ready' || !held.hidden || (await findStarting(tx, id)) !== undefined) return false
      if (await isTagged(tx, id)) return false
      await patchSnapshot(tx, id, { state: 'deleting', deleted_at: new Date() })
      return true
    })
    if (isRetired) await this.#purgeSoon(id)
    return isRetired
  }

  async #refuseReserved(name: string): Promise<void> {
    if ((await this.#deps.host.findTemplate(name)) === undefined) return
    throw new AppError('name_reserved', `${name} is the name of a built-in template.`)
  }

  /** Built-in templates, then the team's snapshots, oldest first. */
  async list(teamId: string, type?: Template['type']): Promise<Template[]> {
    const { db, host } = this.#deps
    const base = type === 'snapshot' ? [] : (await host.templates()).map(platformTemplate)
    const own = type === 'base' ? [] : (await listSnapshots(db, teamId)).map(snapshotTemplate)
    return [...base, ...own]
  }

  /** The team's own that capsules can be created from, newest first. @throws AppError `invalid_request` for a cursor that is none */
  async page(teamId: string, { cursor, limit, ...filter }: PageQuery): Promise<SnapshotPage> {
    const beforeSeq = cursor === undefined ? undefined : decodeCursor(cursor)
    const rows = await findSnapshots(this.#deps.db, teamId, { ...filter, beforeSeq, limit: limit + 1 })
    const names = rows.slice(0, limit).map(({ name }) => name)
    const last = rows.length > limit ? rows[limit - 1] : undefined
    return { names, nextCursor: last === undefined ? undefined : encodeCursor(last.seq) }
  }

  /** @throws AppError `template_not_found` */
  async get(teamId: string, name: string): Promise<Template> {
    const own = await findSnapshotByName(this.#deps.db, teamId, name)
    // What only a tag stands for has no other name.
    if (own?.state === 'ready') return { ...snapshotTemplate(own), name }
    return platformTemplate(await this.#deps.host.template(name))
  }

  /**
   * Deletes a snapshot; capsules made from it stay. When the host is away its files go when it is back.
   * @throws AppError `template_not_found`, `forbidden` for a built-in one, `in_use`, `invalid_state`, `invalid_request` for a tag
   */
  async remove(teamId: string, name: string, actor: Actor | undefined): Promise<void> {
    const { db, host } = this.#deps
    if (name.includes(':')) {
      throw new AppError(
        'invalid_request',
        `${name} is a tag of a template: take it away with DELETE /templates/tags, or delete the template.`,
      )
    }
    const own = await findSnapshotByName(db, teamId, name)
    if (own === undefined) {
      await host.template(name)
      throw new AppError('forbidden', `${name} is a built-in template and cannot be deleted.`)
    }
    await db.transaction().execute(async (tx) => {
      const held = await lockSnapshot(tx, own.id)
      if (held?.state === 'creating') throw new AppError('invalid_state', `The snapshot ${name} is still being made.`)
      const starting = await findStarting(tx, own.id)
      if (starting !== undefined) {
        throw new AppError('in_use', `The capsule ${starting} is being created from ${name}.`)
      }
      if (held?.state !== 'ready') return
      if (held.name !== name) {
        throw new AppError('conflict', `${name} has just been built anew; delete it again if that one is meant.`)
      }
      await patchSnapshot(tx, own.id, { state: 'deleting', deleted_at: new Date() })
      await dropTags(tx, teamId, name)
      const resource = { type: 'snapshot', id: own.id } as const
      await writeAudit(tx, { teamId, actor, action: 'snapshot.delete', resource, details: { name } })
    })
    await this.#purgeSoon(own.id)
  }

  /**
   * An archive of a template of the team, whose first bytes the host has promised: its files and what is said of it, without its memory. The caller
   * aborts what it does not read to its end.
   * @throws AppError `template_not_found`, `forbidden` for a built-in one, `invalid_state`, `host_unavailable`, `limit_exceeded`, `not_supported` by the host
   */
  async export(teamId: string, name: string, actor: Actor | undefined): Promise<OpenedTemplateArchive> {
    const { db, host } = this.#deps
    const own = await findSnapshotByName(db, teamId, name)
    if (own === undefined) {
      const { name: builtIn } = await host.template(name)
      throw new AppError('forbidden', `${builtIn} is built in: every platform has it.`)
    }
    if (own.state !== 'ready') throw new AppError('invalid_state', `The template ${name} is not ready.`)
    const { user = '', cwd = '', envs = {}, startCmd = '', readyCmd = '' } = own.defaults ?? {}
    const setup = { user, cwd, envs, startCommand: startCmd, readyCommand: readyCmd }
    const archive = await openTemplateArchive(host, { snapshotId: own.id, name, setup })
    try {
      await db.transaction().execute(async (tx) => {
        const resource = { type: 'template', id: name } as const
        await writeAudit(tx, { teamId, actor, action: 'template.export', resource, details: { snapshot_id: own.id } })
      })
      return archive
    } catch (error) {
      archive.abort()
      throw error
    }
  }

  /** What is no longer offered; files that cannot go now do at the next comparison with the host. */
  async #purgeSoon(id: string): Promise<void> {
    await this.purge({ id }).catch((error: unknown) => {
      this.#deps.logger.warn({ snapshotId: id, error: errorText(error) }, 'snapshot.delete_deferred')
    })
  }

  /** Removes the files of a snapshot that is not offered any more. @throws AppError when the host did not do it */
  async purge({ id: snapshotId }: Pick<SnapshotRow, 'id'>): Promise<void> {
    await purgeSnapshot(this.#deps, snapshotId)
  }
}

function draft(capsule: CapsuleRow) {
  return {
    id: snapshotIds.create(),
    team_id: capsule.team_id,
    capsule_id: capsule.id,
    host_id: capsule.host_id,
    template: capsule.template,
    vcpus: capsule.vcpus,
    memory_mib: capsule.memory_mib,
    disk_size_mib: capsule.disk_size_mib,
    state: 'creating' as const,
    versions: '{}',
  }
}
