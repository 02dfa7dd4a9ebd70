import { randomUUID } from 'node:crypto'
import { AppError, errorText, type Logger } from '@wrenn/base'
import { type ErrorBody, errorKind } from '@wrenn/protocol'
import type { Host } from '../host/host.js'
import { type CapsulePatch, findAnyCapsule, transition } from '../store/capsules.js'
import type { Db } from '../store/database.js'
import { findOperation, finishOperation, renewLease, takeExpired } from '../store/operations.js'
import type { CapsuleRow, OperationKind, OperationRow } from '../store/schema.js'
import { exitOf, factsOf } from './host-facts.js'

export const LEASE_MS = 15_000
const RENEW_MS = 5_000
const RETRY_MS = 3_000
const DESTROY_TIMEOUT_MS = 60_000
const MAX_CREATE_ATTEMPTS = 3

export interface OperationsDeps {
  readonly db: Db
  readonly host: Host
  readonly logger: Logger
  readonly createTimeoutMs: number
}

/** The row of a new operation; its id is made here. */
export function newOperation(
  kind: OperationKind,
  capsule: { readonly id: string; readonly team_id: string; readonly generation: number },
  request: { readonly hash: string; readonly key?: string | undefined },
) {
  return {
    id: `op-${randomUUID()}`,
    team_id: capsule.team_id,
    capsule_id: capsule.id,
    kind,
    idempotency_key: request.key ?? null,
    request_hash: request.hash,
    state: 'running' as const,
    generation: capsule.generation,
  }
}

/**
 * Executes operations to their end, whether or not the client that asked is still there. Each holds a lease in the
 * database; when its process dies, another (or the next start) takes it over after the lease.
 */
export class Operations {
  readonly #deps: OperationsDeps
  readonly #running = new Map<string, Promise<void>>()
  #stopping = false

  constructor(deps: OperationsDeps) {
    this.#deps = deps
  }

  /** Runs an operation in the background; `wait` tells when it is over. */
  start(operation: OperationRow): void {
    if (this.#running.has(operation.id)) return
    const run = this.#run(operation).finally(() => this.#running.delete(operation.id))
    this.#running.set(operation.id, run)
  }

  /** The operation when it has ended, `undefined` when it still runs after `waitMs`. */
  async wait(id: string, waitMs: number): Promise<OperationRow | undefined> {
    const deadline = performance.now() + waitMs
    const own = this.#running.get(id)
    if (own !== undefined) await settledWithin(own, waitMs)
    for (;;) {
      const operation = await findOperation(this.#deps.db, id)
      if (operation !== undefined && operation.state !== 'running') return operation
      const left = deadline - performance.now()
      if (left <= 0) return undefined
      await settledWithin(new Promise(() => {}), Math.min(left, 100))
    }
  }

  /** Takes over what dead processes left; called regularly. */
  async resumeExpired(): Promise<void> {
    while (!this.#stopping) {
      const operation = await takeExpired(this.#deps.db, LEASE_MS)
      if (operation === undefined) return
      this.#deps.logger.info({ ...fieldsOf(operation), attempts: operation.attempts }, 'operation.resumed')
      this.start(operation)
    }
  }

  /** Waits for the running operations; what is not done by then is taken over after its lease. */
  async drain(waitMs: number): Promise<void> {
    this.#stopping = true
    await settledWithin(Promise.all(this.#running.values()), waitMs)
  }

  async #run(operation: OperationRow): Promise<void> {
    const { db, logger } = this.#deps
    const startedAt = performance.now()
    const renewal = setInterval(() => void renewLease(db, operation.id, LEASE_MS).catch(() => {}), RENEW_MS)
    try {
      await (operation.kind === 'create' ? this.#create(operation) : this.#destroy(operation))
      logger.info({ ...fieldsOf(operation), ms: Math.round(performance.now() - startedAt) }, 'operation.ended')
    } catch (error) {
      // The lease runs out and the operation is taken up again, by us or by another.
      logger.error({ ...fieldsOf(operation), error: errorText(error) }, 'operation.interrupted')
    } finally {
      clearInterval(renewal)
    }
  }

  async #create(operation: OperationRow): Promise<void> {
    const { db } = this.#deps
    let row = await findAnyCapsule(db, operation.capsule_id)
    if (row?.state === 'pending') row = await transition(db, row, 'start')
    if (row === undefined || row.state !== 'starting') {
      await finishOperation(db, operation.id, row?.state === 'running' ? {} : { error: overtaken })
      return
    }
    try {
      await this.#createOnHost(row)
      await finishOperation(db, operation.id)
    } catch (thrown) {
      await this.#createFailed(operation, row, AppError.from(thrown))
    }
  }

  async #createOnHost(row: CapsuleRow): Promise<void> {
    const { db, host, createTimeoutMs } = this.#deps
    const answer = await host.call((client) =>
      client.createCapsule(
        {
          capsuleId: row.id,
          teamId: row.team_id,
          template: row.template,
          vcpus: row.vcpus,
          memoryMib: row.memory_mib,
          diskSizeMib: row.disk_size_mib,
          envs: row.envs,
          defaultUser: row.default_user,
          defaultCwd: row.default_cwd,
          hostname: row.id,
          generation: BigInt(row.generation),
          egress: row.egress === null ? { internet: true } : { ...row.egress },
        },
        { timeoutMs: createTimeoutMs },
      ),
    )
    const facts: CapsulePatch = answer.capsule === undefined ? {} : factsOf(answer.capsule)
    const now = new Date()
    const started = await this.#apply(row.id, 'starting', (current) =>
      transition(db, current, 'started', {
        ...facts,
        observed_state: 'running',
        started_at: now,
        last_active_at: now,
      }),
    )
    if (!started) await this.#destroyOnHost(row.id)
  }

  async #createFailed(operation: OperationRow, row: CapsuleRow, error: AppError): Promise<void> {
    const { db, logger } = this.#deps
    const silent = AppError.is(error, 'host_unavailable', 'timeout')
    if (silent && operation.attempts > 1 && operation.attempts < MAX_CREATE_ATTEMPTS) throw error
    logger.warn(
      { ...fieldsOf(operation), code: error.code, error: error.message, cause: errorText(error.cause) },
      'capsule.create_failed',
    )
    // Nothing may stay behind: what the host made late is destroyed, by us now or by the reconciler.
    const exit = { ...exitOf(undefined), cause: 'create_failed', message: error.message, at: new Date().toISOString() }
    await this.#apply(row.id, 'starting', (current) =>
      transition(db, current, 'failed', { desired_state: 'stopped', exit: JSON.stringify(exit) }),
    )
    await finishOperation(db, operation.id, { error: toWire(error), releaseKey: errorKind(error.code).retryable })
    if (silent) await this.#destroyOnHost(row.id).catch(() => {})
  }

  async #destroy(operation: OperationRow): Promise<void> {
    const { db } = this.#deps
    try {
      await this.#destroyOnHost(operation.capsule_id)
    } catch (error) {
      // The wish is recorded; it is tried again until the host answers.
      this.#deps.logger.warn({ ...fieldsOf(operation), error: errorText(error) }, 'capsule.destroy_deferred')
      await renewLease(db, operation.id, RETRY_MS)
      return
    }
    await this.#apply(operation.capsule_id, 'stopping', (current) =>
      transition(db, current, 'destroyed', { observed_state: 'absent', stopped_at: new Date() }),
    )
    await finishOperation(db, operation.id)
  }

  async #destroyOnHost(capsuleId: string): Promise<void> {
    await this.#deps.host.call((client) => client.destroyCapsule({ capsuleId }, { timeoutMs: DESTROY_TIMEOUT_MS }))
  }

  /** Repeats a compare-and-set while the capsule stays in `state`. False when it left that state by another hand. */
  async #apply(
    capsuleId: string,
    state: CapsuleRow['state'],
    change: (row: CapsuleRow) => Promise<CapsuleRow | undefined>,
  ): Promise<boolean> {
    for (;;) {
      const row = await findAnyCapsule(this.#deps.db, capsuleId)
      if (row === undefined || row.state !== state) return false
      if ((await change(row)) !== undefined) return true
    }
  }
}

const overtaken: ErrorBody['error'] = {
  code: 'invalid_state',
  message: 'The capsule was destroyed before it had started.',
}

function toWire(error: AppError): ErrorBody['error'] {
  return {
    code: error.code,
    message: error.message,
    ...(error.details === undefined ? {} : { details: error.details }),
  }
}

function fieldsOf(operation: OperationRow) {
  return { operationId: operation.id, kind: operation.kind, capsuleId: operation.capsule_id }
}

/** Waits for `promise`, whatever becomes of it, but no longer than `waitMs`. */
async function settledWithin(promise: Promise<unknown>, waitMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const timeUp = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, waitMs)
  })
  await Promise.race([promise.catch(() => {}), timeUp])
  clearTimeout(timer)
}
