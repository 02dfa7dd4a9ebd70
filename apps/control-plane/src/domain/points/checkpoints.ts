import { AppError, checkpointIds, pathBytes, pathText } from '@wrenn/base'
import {
  type Capsule,
  type Checkpoint,
  type DiffResult,
  type diffQuerySchema,
  type FileChange,
  fileChangeSchema,
} from '@wrenn/protocol'
import type { FileChange as HostFileChange } from '@wrenn/protocol/host'
import type { z } from 'zod'
import { fromHostError } from '../../host/errors.js'
import { lockCapsule, transition } from '../../store/capsules.js'
import { findCheckpoint, insertCheckpoint, listCheckpoints, setCheckpointState } from '../../store/checkpoints.js'
import type { Db } from '../../store/database.js'
import { findForCheckpoint } from '../../store/operations.js'
import type { CapsuleRow, CheckpointRow } from '../../store/schema.js'
import {
  holdCheckpoint,
  illegal,
  isLegal,
  type LifecycleDeps,
  mayHaveSavedState,
  needCapsule,
  needCheckpoint,
  needLegal,
  paramsOf,
  type RequestOptions,
  type ResumeOptions,
  toCapsule,
} from '../capsules/index.js'
import { reserve, reserveSpace } from '../limits/index.js'
import { hashJson, insertNew, resultOf, submit } from '../operations/index.js'
import { toCheckpoint } from './checkpoint-view.js'
import type { RollbackParams } from './execute-rollback.js'

/** A comparison may have to start a copy of the guest first. */
const DIFF_TIMEOUT_MS = 10 * 60_000
/** Of a file at a point in time; more is for `files`, which streams. */
const MAX_FILE_BYTES = 1024 * 1024
/** In a diff: the capsule as it is. */
const NOW = 'current'

/** What needs a checkpoint until it has ended, and what is said then. */
const uses = [
  ['rollback', 'rolled back to'],
  ['fork', 'forked from'],
  ['snapshot', 'made a snapshot of at'],
] as const

interface CreateCheckpointOptions extends RequestOptions {
  /** @default checkpoint-1, -2, … */
  readonly name?: string | undefined
  /** Made by the platform for itself: not listed, named by its id only. @default false */
  readonly hidden?: boolean
}

interface RollbackOptions extends ResumeOptions {
  /** Part of a command that must leave no trace: quotas that filled up meanwhile do not hinder it. @default false */
  readonly isUndo?: boolean
}

interface RequestedCheckpoint {
  readonly checkpoint: Checkpoint
  /** Whether it is made. */
  readonly isReady: boolean
}

/** Which part of a difference, and which page of it. */
export interface DiffOptions extends z.output<typeof diffQuerySchema> {
  /** Ends when nobody wants the answer any more. */
  readonly signal?: AbortSignal
}

/** Points in time of one capsule; `ref` is a checkpoint's id or name. */
export class Checkpoints {
  readonly #deps: LifecycleDeps

  constructor(deps: LifecycleDeps) {
    this.#deps = deps
  }

  /**
   * A point in time, made when this answers.
   * @throws AppError `timeout` when it takes longer than `waitMs` (it is made all the same), and those of `request`
   */
  async create(teamId: string, capsuleId: string, options: CreateCheckpointOptions): Promise<Checkpoint> {
    const { checkpoint, isReady } = await this.request(teamId, capsuleId, options)
    if (isReady) return checkpoint
    throw new AppError('timeout', `The checkpoint ${checkpoint.name} was not made within ${options.waitMs / 1000} s.`)
  }

  /**
   * Saves a point in time of a running or paused capsule.
   * @throws AppError `capsule_not_found`, `invalid_state`, `invalid_request`, `conflict`, `pool_exhausted`,
   * `idempotency_mismatch`, or why it failed
   */
  async request(teamId: string, capsuleId: string, options: CreateCheckpointOptions): Promise<RequestedCheckpoint> {
    const { db, operations, limits } = this.#deps
    const { name, hidden = false, idempotencyKey: key, actor } = options
    if (name !== undefined) checkName(name)
    const submission = { teamId, kind: 'checkpoint', hash: hashJson({ capsuleId, name }), key, actor } as const
    const operation = await submit(this.#deps, submission, async (tx) => {
      const row = await needCapsule(tx, teamId, capsuleId)
      needLegal(row, 'checkpoint')
      await reserveSpace(tx, teamId, limits)
      const moved = await transition(tx, row, 'checkpoint')
      if (moved === undefined) return undefined
      const checkpoint = await insertDraft(tx, moved, name, hidden)
      return await insertNew(tx, submission, moved, { checkpointId: checkpoint.id })
    })
    const result = await resultOf(operations, operation, options.waitMs)
    // The executor wrote it in this form.
    if (result !== undefined) return { checkpoint: result.checkpoint as Checkpoint, isReady: true }
    const drafted = await findCheckpoint(db, capsuleId, String(operation.params?.checkpointId))
    if (drafted === undefined) throw new AppError('checkpoint_not_found', 'The checkpoint was given up.')
    return { checkpoint: toCheckpoint(drafted, null), isReady: false }
  }

  /** Oldest first. @throws AppError `capsule_not_found` */
  async list(teamId: string, capsuleId: string): Promise<Checkpoint[]> {
    const row = await needCapsule(this.#deps.db, teamId, capsuleId)
    const checkpoints = await listCheckpoints(this.#deps.db, capsuleId)
    return checkpoints.map((checkpoint) => toCheckpoint(checkpoint, row.checkpoint_id))
  }

  /** @throws AppError `capsule_not_found`, `checkpoint_not_found` */
  async get(teamId: string, capsuleId: string, ref: string): Promise<Checkpoint> {
    const row = await needCapsule(this.#deps.db, teamId, capsuleId)
    return toCheckpoint(await needCheckpoint(this.#deps.db, capsuleId, ref), row.checkpoint_id)
  }

  /**
   * The capsule as it was at the checkpoint, under the same id; a running one runs, a paused one stays paused, one that had
   * ended runs again. With `from: 'disk'` its files only.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `invalid_state`, `pool_exhausted`, `idempotency_mismatch`,
   * or why it failed
   */
  async rollback(teamId: string, capsuleId: string, ref: string, options: RollbackOptions): Promise<Capsule> {
    const { db, operations } = this.#deps
    const from = paramsOf(options.from)
    const submission = {
      teamId,
      kind: 'rollback',
      hash: hashJson({ capsuleId, ref, ...from }),
      key: options.idempotencyKey,
      actor: options.actor,
    } as const
    const operation = await submit(this.#deps, submission, async (tx) => {
      const isEnded = await this.#reserveForEnded(tx, teamId, capsuleId, options)
      const row = await holdCapsule(tx, teamId, capsuleId)
      if (isEnded !== hasEnded(row)) return undefined
      const checkpoint = await holdCheckpoint(tx, capsuleId, ref)
      needLegal(row, 'rollback')
      const moved = await transition(tx, row, 'rollback', isEnded ? { desired_state: 'running' } : {})
      const params: RollbackParams = { checkpointId: checkpoint.id, isEnded, ...from }
      return moved === undefined ? undefined : await insertNew(tx, submission, moved, { ...params })
    })
    const result = await resultOf(operations, operation, options.waitMs)
    // The executor wrote it in this form.
    if (result !== undefined) return result.capsule as Capsule
    return toCapsule(await needCapsule(db, teamId, capsuleId))
  }

  /** A capsule that has ended counts anew when it is to run. The team before the capsule, as everywhere. */
  async #reserveForEnded(tx: Db, teamId: string, id: string, { isUndo = false }: RollbackOptions): Promise<boolean> {
    const row = await needCapsule(tx, teamId, id)
    if (!hasEnded(row)) return false
    if (!mayHaveSavedState(row)) {
      throw new AppError('invalid_state', 'The capsule has ended and its host has nothing left of it to go back to.')
    }
    if (!isUndo) {
      const demand = { running: 1, vcpus: row.vcpus, memoryMib: row.memory_mib, added: 0 }
      await reserve(tx, teamId, this.#deps.limits, demand)
    }
    return true
  }

  /**
   * Drops a point in time; those made after it stay. One that is being dropped is waited for.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `in_use`, `idempotency_mismatch`, or why it failed
   */
  async remove(teamId: string, capsuleId: string, ref: string, options: RequestOptions): Promise<void> {
    const submission = {
      teamId,
      kind: 'delete_checkpoint',
      hash: hashJson({ capsuleId, ref }),
      key: options.idempotencyKey,
      actor: options.actor,
    } as const
    const operation = await submit(this.#deps, submission, async (tx) => {
      const row = await holdCapsule(tx, teamId, capsuleId)
      const checkpoint = await holdCheckpoint(tx, capsuleId, ref, 'deleting')
      const params = { checkpointId: checkpoint.id }
      if (checkpoint.state === 'deleting') {
        const running = await findForCheckpoint(tx, capsuleId, 'delete_checkpoint', checkpoint.id)
        if (running !== undefined) return { operation: running, isNew: false }
      } else {
        for (const [kind, use] of uses) {
          if ((await findForCheckpoint(tx, capsuleId, kind, checkpoint.id)) === undefined) continue
          throw new AppError('in_use', `The capsule is being ${use} ${checkpoint.name}.`)
        }
      }
      await setCheckpointState(tx, checkpoint.id, 'deleting')
      return await insertNew(tx, submission, row, params)
    })
    await resultOf(this.#deps.operations, operation, options.waitMs)
  }

  /**
   * Files that differ between two points in time, a page of them; `to` may be `current`.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `invalid_state`, or why it failed
   */
  async diff(teamId: string, capsuleId: string, points: Points, options: DiffOptions): Promise<DiffResult> {
    const { db } = this.#deps
    const row = await needCapsule(db, teamId, capsuleId)
    const from = await needCheckpoint(db, capsuleId, points.from)
    const to = points.to === NOW ? undefined : await needCheckpoint(db, capsuleId, points.to)
    if (!isLegal(row.state, 'checkpoint')) throw illegal(row, 'diff')
    const { changes: page, captureId } = await this.#readDiff(
      { capsuleId, fromCheckpointId: from.id, toCheckpointId: to?.id ?? '', path: options.path ?? '' },
      options,
    )
    const changes = page.slice(0, options.limit)
    const last = page.length > options.limit ? changes.at(-1) : undefined
    return {
      from: from.id,
      to: to?.id ?? NOW,
      changes,
      ...(last === undefined ? {} : { next_cursor: cursorOf(last, captureId) }),
    }
  }

  /**
   * The content of a file at a point in time; `ref` may be `current`.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `file_not_found`, `is_a_directory`, `too_large`, `invalid_state`,
   * or why it failed
   */
  async readFile(
    teamId: string,
    capsuleId: string,
    ref: string,
    { path, signal }: { readonly path: string; readonly signal: AbortSignal },
  ): Promise<Uint8Array> {
    const { db, host } = this.#deps
    const row = await needCapsule(db, teamId, capsuleId)
    const checkpointId = ref === NOW ? '' : (await needCheckpoint(db, capsuleId, ref)).id
    if (!isLegal(row.state, 'checkpoint')) throw illegal(row, 'diff')
    const request = { capsuleId, checkpointId, path, maxBytes: MAX_FILE_BYTES }
    const answer = await host.call((client) =>
      client.readCheckpointFile(request, { timeoutMs: DIFF_TIMEOUT_MS, signal }),
    )
    return answer.content
  }

  /** One change more than a page has, if there are so many. */
  async #readDiff(request: DiffRequest, { cursor, limit, signal }: DiffOptions): Promise<DiffPage> {
    const changes: FileChange[] = []
    const from: Place = cursor === undefined ? {} : placeOf(cursor)
    let captureId = from.captureId ?? ''
    try {
      const options = { timeoutMs: DIFF_TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) }
      const parts = this.#deps.host.client.diffCheckpoints({ ...request, ...from, limit: limit + 1 }, options)
      for await (const part of parts) {
        changes.push(...part.changes.map(toFileChange))
        captureId = part.captureId || captureId
      }
    } catch (error) {
      throw fromHostError(error)
    }
    return { changes, captureId }
  }
}

interface DiffPage {
  readonly changes: readonly FileChange[]
  /** Of the capsule as it was, when it was compared as it is; else empty. */
  readonly captureId: string
}

/** Where a page begins. */
interface Place {
  readonly after?: Uint8Array
  readonly captureId?: string
}

/** The path a page ended with and, before a dot, the capture that all pages compare. */
/** Hosts sort paths by their bytes. */
function cursorOf(last: FileChange, captureId: string): string {
  const path = pathBytes(last.path).toString('base64url')
  return captureId === '' ? path : `${captureId}.${path}`
}

function placeOf(cursor: string): Place {
  const dot = cursor.indexOf('.')
  const after = Buffer.from(cursor.slice(dot + 1), 'base64url')
  return dot === -1 ? { after } : { after, captureId: cursor.slice(0, dot) }
}

interface Points {
  readonly from: string
  readonly to: string
}

interface DiffRequest {
  readonly capsuleId: string
  readonly fromCheckpointId: string
  readonly toCheckpointId: string
  readonly path: string
}

function hasEnded({ state }: CapsuleRow): boolean {
  return state === 'error'
}

/** Names stand where ids stand, so they must not look like one. @throws AppError `invalid_request` */
function checkName(name: string): void {
  if (name !== NOW && !checkpointIds.is(name)) return
  throw new AppError('invalid_request', `name: "${name}" means something else already; choose another.`)
}

/** Everybody who holds a capsule and its checkpoints takes the capsule first. @throws AppError `capsule_not_found` */
async function holdCapsule(tx: Db, teamId: string, id: string): Promise<CapsuleRow> {
  await needCapsule(tx, teamId, id)
  return (await lockCapsule(tx, id)) ?? (await needCapsule(tx, teamId, id))
}

/** The row of a checkpoint that is to be made, while its capsule is held. @throws AppError `conflict` */
async function insertDraft(
  tx: Db,
  capsule: CapsuleRow,
  name: string | undefined,
  hidden: boolean,
): Promise<CheckpointRow> {
  const id = checkpointIds.create()
  const chosen = name ?? (hidden ? id : await nextName(tx, capsule.id))
  const row = await insertCheckpoint(tx, {
    id,
    team_id: capsule.team_id,
    capsule_id: capsule.id,
    name: chosen,
    parent_id: capsule.checkpoint_id,
    state: 'creating',
    hidden,
  })
  if (row === undefined) throw new AppError('conflict', `The capsule has a checkpoint ${chosen} already.`)
  return row
}

async function nextName(tx: Db, capsuleId: string): Promise<string> {
  const checkpoints = await listCheckpoints(tx, capsuleId, { all: true })
  const numbers = checkpoints.map(({ name }) => Number(/^checkpoint-(\d{1,9})$/.exec(name)?.[1] ?? 0))
  return `checkpoint-${Math.max(0, ...numbers) + 1}`
}

/** @throws ZodError when the host does not keep to the contract */
function toFileChange({ change, path, type, size, what, pathEncoding }: HostFileChange): FileChange {
  const text = pathEncoding === 'base64' ? pathText(Buffer.from(path, 'base64')) : path
  return fileChangeSchema.parse({ change, path: text, type, size: Number(size), what })
}
