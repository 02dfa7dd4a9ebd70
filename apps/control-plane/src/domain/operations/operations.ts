import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import {
  AppError,
  errorText,
  inSpan,
  type Logger,
  noTracer,
  type Span,
  type SpanFields,
  type Tracer,
} from '@wrenn/base'
import { errorKind } from '@wrenn/protocol'
import type { Db } from '../../store/database.js'
import { findOperation, finishOperation, renewLease, takeExpired } from '../../store/operations.js'
import type { Actor, OperationKind, OperationRow } from '../../store/schema.js'

/** How long an operation of a process that died waits for another one: three times the interval of renewal. */
export const LEASE_MS = 15_000
const RENEW_MS = 5_000
const RETRY_MS = 1_000
const MAX_RETRY_MS = 10_000
const LOOK_EVERY_MS = 100

/**
 * Carries out one operation and concludes it in the database, or says that it must be tried again. It may run several times:
 * another process does it over when this one died in the middle.
 */
export type Executor = (operation: OperationRow) => Promise<'done' | 'retry'>

/** An operation that has ended. */
export interface EndedOperation {
  readonly kind: OperationKind
  readonly outcome: 'succeeded' | 'failed'
  /** Since it was asked for, restarts of whoever carried it out included. */
  readonly seconds: number
}

type Executors = Readonly<Partial<Record<OperationKind, Executor>>>

interface OperationsDeps {
  readonly db: Db
  readonly logger: Logger
  /** @default makes no spans */
  readonly tracer?: Tracer
  readonly executors: Executors
}

/** The row of a new operation; its id is made here. */
export function newOperation(
  kind: OperationKind,
  capsule: { readonly id: string; readonly team_id: string; readonly generation: number },
  request: {
    readonly hash: string
    readonly key?: string | undefined
    readonly params?: Readonly<Record<string, unknown>> | undefined
    /** @default the platform itself */
    readonly actor?: Actor | undefined
  },
) {
  return {
    id: `op-${randomUUID()}`,
    team_id: capsule.team_id,
    capsule_id: capsule.id,
    kind,
    idempotency_key: request.key ?? null,
    request_hash: request.hash,
    params: request.params === undefined ? null : JSON.stringify(request.params),
    state: 'running' as const,
    generation: capsule.generation,
    actor: request.actor === undefined ? null : JSON.stringify(request.actor),
  }
}

/** @throws AppError why the operation failed, when it did */
export function throwFailure(operation: OperationRow | undefined): void {
  const error = operation?.error
  if (error) throw new AppError(error.code, error.message, { details: error.details ?? {} })
}

/**
 * Executes operations to their end, whether or not the client that asked is still there. Each holds a lease in the
 * database; when its process dies, another (or the next start) takes it over after the lease.
 */
export class Operations {
  readonly #deps: OperationsDeps
  readonly #executors = new Map<string, Executor>()
  readonly #running = new Map<string, Promise<void>>()
  readonly #listeners: ((ended: EndedOperation) => void)[] = []
  #stopping = false

  constructor(deps: OperationsDeps) {
    this.#deps = deps
    for (const [kind, executor] of Object.entries(deps.executors)) this.#executors.set(kind, executor)
  }

  /** Says how operations of `kind` are carried out, where that needs what is made after this. */
  handle(kind: OperationKind, executor: Executor): void {
    this.#executors.set(kind, executor)
  }

  /** Has `listener` told, soon after, of each operation that this process has ended. */
  onEnd(listener: (ended: EndedOperation) => void): void {
    this.#listeners.push(listener)
  }

  /** Runs an operation in the background; `wait` tells when it is over. */
  start(operation: OperationRow): void {
    if (operation.state !== 'running' || this.#running.has(operation.id)) return
    const run = this.#measured(operation).finally(() => this.#running.delete(operation.id))
    void run.then(() => this.#tellEnd(operation.id)).catch(() => {}) // whoever measures misses one
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
      await delay(Math.min(left, LOOK_EVERY_MS))
    }
  }

  /** Whether this process begins nothing new. */
  get isStopping(): boolean {
    return this.#stopping
  }

  /** Takes over what dead processes left, and what is due for another try; called regularly. */
  async resumeExpired(): Promise<void> {
    while (!this.#stopping) {
      const operation = await takeExpired(this.#deps.db, LEASE_MS, [...this.#running.keys()])
      if (operation === undefined) return
      this.#deps.logger.debug({ ...fieldsOf(operation), attempts: operation.attempts }, 'operation.resumed')
      this.start(operation)
    }
  }

  /** Waits for the running operations; what is not done by then is taken over after its lease. */
  async drain(waitMs: number): Promise<void> {
    this.#stopping = true
    await settledWithin(Promise.all(this.#running.values()), waitMs)
  }

  /** Below the request that asked for it; one that was taken over is a trace of its own, with the id of that request. */
  async #measured(operation: OperationRow): Promise<void> {
    const { tracer = noTracer } = this.#deps
    if (!tracer.isOn) {
      await this.#run(operation)
      return
    }
    const fields = spanFieldsOf(operation)
    await inSpan(tracer, `operation ${operation.kind}`, { fields }, async (span) => {
      span.set({ 'wrenn.outcome': await this.#run(operation) })
      await this.#tellFailure(operation.id, span)
    })
  }

  async #tellFailure(id: string, span: Span): Promise<void> {
    const ended = await findOperation(this.#deps.db, id).catch(() => undefined) // the database's matter, not the operation's
    if (ended?.error) span.fail(ended.error.code)
  }

  async #run(operation: OperationRow): Promise<'done' | 'retry' | 'interrupted'> {
    const { db, logger } = this.#deps
    const startedAt = performance.now()
    const renewal = setInterval(() => void renewLease(db, operation.id, LEASE_MS).catch(() => {}), RENEW_MS)
    try {
      const outcome = await this.#execute(operation)
      const ms = Math.round(performance.now() - startedAt)
      if (outcome === 'done') logger.info({ ...fieldsOf(operation), ms }, 'operation.ended')
      else await renewLease(db, operation.id, retryDelayMs(operation))
      return outcome
    } catch (error) {
      // The lease runs out and the operation is taken up again, by us or by another.
      logger.error({ ...fieldsOf(operation), error: errorText(error) }, 'operation.interrupted')
      return 'interrupted'
    } finally {
      clearInterval(renewal)
    }
  }

  async #tellEnd(id: string): Promise<void> {
    if (this.#listeners.length === 0) return
    const ended = await findOperation(this.#deps.db, id)
    if (ended === undefined || ended.state === 'running') return
    const { kind, state, created_at: from, updated_at: until } = ended
    for (const listener of this.#listeners)
      listener({ kind, outcome: state, seconds: (until.getTime() - from.getTime()) / 1000 })
  }

  async #execute(operation: OperationRow): Promise<'done' | 'retry'> {
    const joins = operation.params?.joins
    if (typeof joins === 'string') return await this.#join(operation, joins)
    const executor = this.#executors.get(operation.kind)
    if (executor === undefined) throw new Error(`nobody carries out ${operation.kind}`)
    return await executor(operation)
  }

  /** Ends as the one that it joined. */
  async #join(operation: OperationRow, joins: string): Promise<'done' | 'retry'> {
    const other = await this.wait(joins, LEASE_MS)
    if (other === undefined) return 'retry'
    await finishOperation(this.#deps.db, operation.id, {
      // What may pass by itself gives this key back as it gave the other's.
      ...(other.error === null ? {} : { error: other.error, releaseKey: errorKind(other.error.code).retryable }),
      ...(other.result === null ? {} : { result: other.result }),
    })
    return 'done'
  }
}

/** Doubles, so that a host that is away for long is not asked all the time. */
function retryDelayMs({ attempts }: OperationRow): number {
  return Math.min(RETRY_MS * 2 ** Math.min(attempts - 1, 10), MAX_RETRY_MS)
}

/** What every log line of an operation carries. */
export function fieldsOf(operation: OperationRow) {
  return { operationId: operation.id, kind: operation.kind, capsuleId: operation.capsule_id }
}

function spanFieldsOf(operation: OperationRow): SpanFields {
  return {
    'wrenn.operation_id': operation.id,
    'wrenn.kind': operation.kind,
    'wrenn.capsule_id': operation.capsule_id,
    'wrenn.team_id': operation.team_id,
    'wrenn.attempt': operation.attempts,
    'wrenn.request_id': operation.actor?.requestId,
  }
}

/** Waits for `promise`, whatever becomes of it, but no longer than `waitMs`. */
async function settledWithin(promise: Promise<unknown>, waitMs: number): Promise<void> {
  const timeUp = new AbortController()
  await Promise.race([
    promise.catch(() => {}),
    delay(waitMs, undefined, { signal: timeUp.signal }).catch(() => {}), // it ended before
  ])
  timeUp.abort()
}
