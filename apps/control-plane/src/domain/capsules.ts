import { AppError, capsuleIds } from '@wrenn/base'
import {
  type CapsuleState,
  type CreateCapsuleInput,
  capsuleDefaults,
  capsuleStates,
  isUsable,
  type ListCapsulesQuery,
  wireStatus,
} from '@wrenn/protocol'
import type { Limits } from '../config.js'
import type { Host } from '../host/host.js'
import {
  countOpenCapsules,
  findCapsule,
  insertCapsule,
  listCapsules,
  type NewCapsule,
  transition,
} from '../store/capsules.js'
import type { Db } from '../store/database.js'
import { findByKey, findCreate, insertOperation } from '../store/operations.js'
import type { CapsuleRow, OperationRow } from '../store/schema.js'
import { hashJson } from './canonical.js'
import { decodeCursor, encodeCursor } from './cursor.js'
import { LEASE_MS, newOperation, type Operations } from './operations.js'

export interface CapsulesDeps {
  readonly db: Db
  readonly host: Host
  readonly operations: Operations
  readonly limits: Limits
  /** How long a call waits for its capsule to start. */
  readonly startWaitMs: number
}

export interface CreateOptions {
  readonly idempotencyKey: string | undefined
  readonly waitMs: number
}

export interface CapsulePage {
  readonly rows: readonly CapsuleRow[]
  readonly nextCursor: string | undefined
}

/** What people do with capsules; every call is about one team. */
export class Capsules {
  readonly #deps: CapsulesDeps

  constructor(deps: CapsulesDeps) {
    this.#deps = deps
  }

  /**
   * Creates a capsule and waits up to `waitMs` until it runs; the create goes on afterwards, and also when the caller leaves.
   * @throws AppError `invalid_request`, `template_not_found`, `pool_exhausted`, `idempotency_mismatch`, or why it failed
   */
  async create(teamId: string, input: CreateCapsuleInput, options: CreateOptions): Promise<CapsuleRow> {
    const hash = hashJson(input)
    const operation = await this.#begin(teamId, input, hash, options.idempotencyKey)
    if (operation.request_hash !== hash) {
      throw new AppError('idempotency_mismatch', 'This Idempotency-Key was used with a different request.')
    }
    const ended =
      operation.state === 'running' ? await this.#deps.operations.wait(operation.id, options.waitMs) : operation
    throwFailure(ended)
    return await this.get(teamId, operation.capsule_id)
  }

  /** A new operation, started, or the one that the key named before. */
  async #begin(
    teamId: string,
    input: CreateCapsuleInput,
    hash: string,
    key: string | undefined,
  ): Promise<OperationRow> {
    const { db, operations } = this.#deps
    const earlier = key === undefined ? undefined : await findByKey(db, teamId, 'create', key)
    if (earlier !== undefined) return earlier
    const draft = await this.#draft(teamId, input)
    const { operation, isNew } = await db.transaction().execute(async (tx) => {
      // One create of a team at a time decides about the limit and the key.
      await tx.selectFrom('teams').select('id').where('id', '=', teamId).forUpdate().execute()
      const known = key === undefined ? undefined : await findByKey(tx, teamId, 'create', key)
      if (known !== undefined) return { operation: known, isNew: false }
      await this.#checkTeamLimit(tx, teamId)
      const capsule = await insertCapsule(tx, draft)
      const inserted = await insertOperation(tx, newOperation('create', capsule, { hash, key }), LEASE_MS)
      if (inserted === undefined) throw new AppError('conflict', 'Another create uses this Idempotency-Key right now.')
      return { operation: inserted, isNew: true }
    })
    if (isNew) operations.start(operation)
    return operation
  }

  async #draft(teamId: string, input: CreateCapsuleInput): Promise<NewCapsule> {
    const { host, limits } = this.#deps
    checkLimits(input, limits)
    const template = await host.template(input.template)
    const id = capsuleIds.create()
    return {
      id,
      team_id: teamId,
      name: input.name ?? null,
      template: input.template,
      vcpus: input.vcpus ?? (template.defaultVcpus || capsuleDefaults.vcpus),
      memory_mib: input.memory_mb ?? (template.defaultMemoryMib || capsuleDefaults.memoryMib),
      disk_size_mib: input.disk_size_mb ?? limits.defaultDiskSizeMib,
      timeout_sec: input.timeout_sec,
      labels: JSON.stringify({ ...input.metadata, ...input.labels }),
      envs: JSON.stringify(input.envs),
      egress: input.egress === undefined ? null : JSON.stringify(input.egress),
      default_user: input.user ?? '',
      default_cwd: input.cwd ?? '',
      state: 'pending',
      desired_state: 'running',
    }
  }

  async #checkTeamLimit(db: Db, teamId: string): Promise<void> {
    const { maxCapsules } = this.#deps.limits
    if (maxCapsules > 0 && (await countOpenCapsules(db, teamId)) >= maxCapsules) {
      throw new AppError('pool_exhausted', `The team has its ${maxCapsules} capsules already (WRENN_MAX_CAPSULES).`)
    }
  }

  /** @throws AppError `capsule_not_found` */
  async get(teamId: string, id: string): Promise<CapsuleRow> {
    const row = await findCapsule(this.#deps.db, teamId, id)
    if (row === undefined) throw new AppError('capsule_not_found', `There is no capsule ${id}.`)
    return row
  }

  /**
   * A capsule that can run commands; one that is just starting is waited for.
   * @throws AppError `capsule_not_found`, `guest_died`, `invalid_state`, or why it did not start
   */
  async running(teamId: string, id: string): Promise<CapsuleRow> {
    let row = await this.get(teamId, id)
    if (row.state === 'pending' || row.state === 'starting') row = await this.#started(teamId, id)
    if (isUsable(row.state)) return row
    if (row.state === 'error' && row.exit !== null) {
      const details = { exit: row.exit }
      if (row.started_at === null)
        throw new AppError('invalid_state', `The capsule did not start: ${row.exit.message}`, { details })
      throw new AppError('guest_died', `The capsule has ended: ${row.exit.message}`, { details })
    }
    throw new AppError('invalid_state', `The capsule is ${row.state}, not running.`, { details: { state: row.state } })
  }

  /** Waits for the create of a capsule; many clients use one as soon as they know its id. */
  async #started(teamId: string, id: string): Promise<CapsuleRow> {
    const { db, operations, startWaitMs } = this.#deps
    const operation = await findCreate(db, id)
    if (operation !== undefined) throwFailure(await operations.wait(operation.id, startWaitMs))
    return await this.get(teamId, id)
  }

  async list(teamId: string, query: ListCapsulesQuery): Promise<CapsulePage> {
    const rows = await listCapsules(this.#deps.db, teamId, {
      states: statesOf(query.status),
      template: query.template,
      name: query.name,
      labels: labelsOf(query.label),
      beforeSeq: query.cursor === undefined ? undefined : decodeCursor(query.cursor),
      limit: query.limit + 1,
    })
    const page = rows.slice(0, query.limit)
    const last = rows.length > query.limit ? page.at(-1) : undefined
    return { rows: page, nextCursor: last === undefined ? undefined : encodeCursor(last.seq) }
  }

  /**
   * Ends a capsule and removes its files; idempotent. Waits up to `waitMs`; when the host is away the wish stays recorded
   * and is carried out when it answers.
   * @throws AppError `capsule_not_found`
   */
  async destroy(teamId: string, id: string, waitMs: number): Promise<void> {
    const { db, operations } = this.#deps
    for (;;) {
      const row = await this.get(teamId, id)
      if (row.state === 'stopped') return
      const operation = await db.transaction().execute(async (tx) => {
        const stopping = await transition(tx, row, 'destroy', { desired_state: 'stopped' })
        if (stopping === undefined) return undefined
        return await insertOperation(tx, newOperation('destroy', stopping, { hash: '' }), LEASE_MS)
      })
      if (operation === undefined) continue
      operations.start(operation)
      await operations.wait(operation.id, waitMs)
      return
    }
  }
}

/** @throws AppError why the operation failed, when it did */
function throwFailure(operation: OperationRow | undefined): void {
  const error = operation?.error
  if (error) throw new AppError(error.code, error.message, { details: error.details ?? {} })
}

function checkLimits(input: CreateCapsuleInput, limits: Limits): void {
  const checks: readonly (readonly [string, number, number, string])[] = [
    ['vcpus', input.vcpus ?? 0, limits.maxVcpus, 'WRENN_MAX_VCPUS'],
    ['memory_mb', input.memory_mb ?? 0, limits.maxMemoryMib, 'WRENN_MAX_MEMORY_MB'],
    ['disk_size_mb', input.disk_size_mb ?? 0, limits.maxDiskSizeMib, 'WRENN_MAX_DISK_SIZE_MB'],
    ['labels', Object.keys({ ...input.metadata, ...input.labels }).length, limits.maxLabels, 'labels per capsule'],
    ['envs', JSON.stringify(input.envs).length, limits.maxEnvBytes, 'bytes of environment'],
  ]
  for (const [field, value, max, knob] of checks) {
    if (value > max) {
      throw new AppError('invalid_request', `${field} is ${value}; at most ${max} is allowed (${knob}).`, {
        details: { field, max },
      })
    }
  }
}

function statesOf(wanted: ListCapsulesQuery['status']): readonly CapsuleState[] | undefined {
  if (wanted === undefined) return capsuleStates.filter((state) => state !== 'stopped' && state !== 'error')
  if (wanted.includes('all')) return undefined
  // A status means every state shown as it; an exact transitional state means itself.
  return capsuleStates.filter((state) => wanted.includes(state) || wanted.includes(wireStatus(state)))
}

function labelsOf(pairs: ListCapsulesQuery['label']): Record<string, string> {
  return Object.fromEntries(
    (pairs ?? []).map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
  )
}
