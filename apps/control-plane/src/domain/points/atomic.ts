import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorText, type Logger } from '@wrenn/base'
import { type ErrorBody, type ExecInput, type ExecResult, errorKind, isAsleep, isUsable } from '@wrenn/protocol'
import type { HostCalls } from '../../host/host.js'
import { type AtomicStep, enterStep, insertAtomic } from '../../store/atomic.js'
import { findAnyCapsule } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { finishOperation } from '../../store/operations.js'
import type { Actor, OperationRow } from '../../store/schema.js'
import type { AccessLog } from '../audit/index.js'
import { type CapsuleRef, mayHaveSavedState, type Wake } from '../capsules/index.js'
import { execForeground, type SessionContext } from '../commands/index.js'
import { LEASE_MS, newOperation, type Operations, throwFailure } from '../operations/index.js'
import type { Checkpoints } from './checkpoints.js'

/** How long one step may take before it is tried again; its own operation goes on meanwhile. */
const STEP_WAIT_MS = 5 * 60_000
/** A host that answers and refuses this often, once a second, will not do better. */
const MAX_ATTEMPTS = 30
const LOOK_AGAIN_MS = 1_000
/** Answers that say that a command was not even started. */
const NOT_STARTED = [
  'invalid_request',
  'not_found',
  'permission_denied',
  'not_a_directory',
  'conflict',
  'too_large',
] as const

interface AtomicDeps {
  readonly db: Db
  readonly host: HostCalls
  readonly wake: Wake
  readonly checkpoints: Pick<Checkpoints, 'create' | 'rollback' | 'remove'>
  readonly operations: Operations
  readonly accessLog: Pick<AccessLog, 'recorderFor'>
  readonly outputLimitBytes: number
  readonly logger: Logger
}

/** A command that somebody of this process waits for. */
interface Job {
  readonly input: ExecInput
  readonly done: (answer: Promise<ExecResult>) => void
  outcome: Outcome | undefined
}

type Outcome =
  | { readonly type: 'ended'; readonly result: ExecResult }
  | { readonly type: 'failed'; readonly error: AppError; readonly started: boolean }

/** The operation belongs to another process now, which puts the capsule back. */
class TakenOver extends Error {}

/**
 * Commands that happen wholly or not at all: a checkpoint nobody sees, the command, and then the checkpoint is dropped or
 * rolled back to. Each is an operation that enters a step before it begins it. A process that takes one over cannot know how a
 * command ended that had begun, so it rolls back.
 */
export class AtomicExecs {
  readonly #deps: AtomicDeps
  readonly #jobs = new Map<string, Job>()
  readonly #stop = new AbortController()

  constructor(deps: AtomicDeps) {
    this.#deps = deps
    deps.operations.handle('atomic_exec', (operation) => this.#execute(operation))
  }

  /**
   * Runs a command to its end, also when the caller leaves.
   * @throws AppError `in_use` while another atomic command runs there, and those of `Wake.ready`, a checkpoint and an exec
   */
  async run(capsule: CapsuleRef, input: ExecInput, actor: Actor): Promise<ExecResult> {
    const { db, wake, operations } = this.#deps
    const row = await wake.ready(capsule)
    const params = { step: 'checkpoint' satisfies AtomicStep }
    const draft = newOperation('atomic_exec', row, { hash: '', params, actor })
    const operation = await insertAtomic(db, draft, LEASE_MS)
    if (operation === undefined) throw new AppError('in_use', 'The capsule runs another atomic command.')
    return await new Promise<ExecResult>((resolve) => {
      this.#jobs.set(operation.id, { input, done: resolve, outcome: undefined })
      operations.start(operation)
      void this.#answerFromElsewhere(operation.id)
    })
  }

  /** What is to be tried again, another process may take over and end: then nobody here concludes the job. */
  async #answerFromElsewhere(id: string): Promise<void> {
    while (this.#jobs.has(id)) {
      // A database that is away says nothing about the operation.
      const ended = await this.#deps.operations
        .wait(id, LEASE_MS)
        .catch(async () => await delay(LOOK_AGAIN_MS, undefined, { ref: false }))
      const job = this.#jobs.get(id)
      if (ended && job) this.#answer(ended, job, answerOfEnded(ended, job.outcome))
    }
  }

  /** Leaves what runs to the process that takes it over, which rolls it back. */
  stop(): void {
    this.#stop.abort()
    const error = new AppError('host_unavailable', 'The control plane stopped before the command ended; it is undone.')
    for (const job of this.#jobs.values()) job.done(Promise.reject(error))
    this.#jobs.clear()
  }

  async #execute(operation: OperationRow): Promise<'done' | 'retry'> {
    const job = this.#jobs.get(operation.id)
    try {
      if (job !== undefined && job.outcome === undefined) job.outcome = await this.#attempt(operation, job.input)
      const isLost = await this.#conclude(operation, job?.outcome)
      this.#answer(operation, job, isLost ? answerOfLost(job?.outcome) : answerOf(job?.outcome))
      return 'done'
    } catch (thrown) {
      return await this.#interrupted(operation, job, thrown)
    }
  }

  /** Checkpoint and command. What it throws is no answer of theirs. */
  async #attempt(operation: OperationRow, input: ExecInput): Promise<Outcome> {
    const { checkpoints, outputLimitBytes } = this.#deps
    const { teamId, id } = refOf(operation)
    try {
      const options = { name: nameOf(operation), hidden: true, waitMs: STEP_WAIT_MS, idempotencyKey: operation.id }
      await checkpoints.create(teamId, id, options)
    } catch (error) {
      return { type: 'failed', error: AppError.from(error), started: false }
    }
    await this.#enter(operation, 'command')
    try {
      return { type: 'ended', result: await execForeground(await this.#context(operation), input, outputLimitBytes) }
    } catch (thrown) {
      if (this.#stop.signal.aborted) throw thrown
      const error = AppError.from(thrown)
      return { type: 'failed', error, started: !AppError.is(error, ...NOT_STARTED) }
    }
  }

  async #context(operation: OperationRow): Promise<SessionContext> {
    const { host, wake } = this.#deps
    const capsule = refOf(operation)
    const { generation } = await wake.ready(capsule, { asleep: 'wait', signal: this.#stop.signal })
    const record =
      operation.actor === null ? undefined : await this.#deps.accessLog.recorderFor(capsule, operation.actor)
    return { client: host.client, wake, capsule, generation, signal: this.#stop.signal, record }
  }

  /**
   * Undoes or keeps what the command did, and removes the checkpoint. Every part of it may be done again.
   * @returns whether it was to be undone and there is no capsule any more to do it in
   */
  async #conclude(operation: OperationRow, outcome: Outcome | undefined): Promise<boolean> {
    const { checkpoints, db } = this.#deps
    const { teamId, id } = refOf(operation)
    const isOver = await this.#isOver(id)
    const undo = outcome === undefined ? stepOf(operation) !== 'commit' && hasBegun(operation) : mustUndo(outcome)
    await this.#enter(operation, undo ? 'rollback' : 'commit')
    const isLost = undo && isOver
    if (undo && !isOver) {
      await checkpoints.rollback(teamId, id, nameOf(operation), { waitMs: STEP_WAIT_MS, isUndo: true })
    }
    await checkpoints.remove(teamId, id, nameOf(operation), { waitMs: STEP_WAIT_MS }).catch((error: unknown) => {
      // It was never made, or went with its capsule.
      if (!AppError.is(error, 'checkpoint_not_found', 'capsule_not_found') && !isOver) throw error
    })
    await finishOperation(db, operation.id, isLost ? { error: lostWithCapsule } : {})
    if (outcome === undefined && undo) this.#deps.logger.warn({ capsuleId: id }, 'atomic_exec.outcome_unknown')
    return isLost
  }

  /** A capsule that was destroyed, or that its host lost, has nothing to be put back; one whose guest died is put back. */
  async #isOver(id: string): Promise<boolean> {
    const row = await findAnyCapsule(this.#deps.db, id)
    if (row?.state === 'error') return !mayHaveSavedState(row)
    return row === undefined || !(isUsable(row.state) || isAsleep(row.state) || row.state === 'missing')
  }

  async #enter(operation: OperationRow, step: AtomicStep): Promise<void> {
    if (!(await enterStep(this.#deps.db, operation, step))) throw new TakenOver()
  }

  async #interrupted(operation: OperationRow, job: Job | undefined, thrown: unknown): Promise<'done' | 'retry'> {
    if (this.#stop.signal.aborted) throw thrown
    if (thrown instanceof TakenOver) {
      const error = new AppError('rolled_back', 'Another control plane took the command over and undoes it.')
      this.#answer(operation, job, Promise.reject(error))
      return 'done'
    }
    const error = AppError.from(thrown)
    this.#deps.logger.warn({ capsuleId: operation.capsule_id, error: errorText(thrown) }, 'atomic_exec.not_concluded')
    if (await this.#mayEndBetter(operation, error)) return 'retry'
    const details = { checkpoint: nameOf(operation) }
    await finishOperation(this.#deps.db, operation.id, { error: { code: error.code, message: error.message, details } })
    this.#answer(operation, job, Promise.reject(new AppError(error.code, error.message, { details, cause: thrown })))
    return 'done'
  }

  /** The capsule may be busy with something else, or its host away; what must be undone stays to be undone. */
  async #mayEndBetter({ attempts, capsule_id }: OperationRow, { code }: AppError): Promise<boolean> {
    if (!errorKind(code).retryable && code !== 'invalid_state') return false
    if (attempts < MAX_ATTEMPTS || code === 'host_unavailable') return true
    const row = await findAnyCapsule(this.#deps.db, capsule_id)
    return row?.state === 'missing'
  }

  #answer(operation: OperationRow, job: Job | undefined, answer: Promise<ExecResult>): void {
    this.#jobs.delete(operation.id)
    if (job === undefined) answer.catch(() => {})
    else job.done(answer)
  }
}

const lostWithCapsule: ErrorBody['error'] = {
  code: 'guest_died',
  message: 'The capsule ended before the command could be undone.',
}

function refOf(operation: OperationRow): CapsuleRef {
  return { teamId: operation.team_id, id: operation.capsule_id }
}

/** No checkpoint of a person can have it: theirs start with a letter or digit. */
function nameOf({ id }: OperationRow): string {
  return `.atomic-${id}`
}

function stepOf({ params }: OperationRow): unknown {
  return params?.step
}

function hasBegun(operation: OperationRow): boolean {
  return stepOf(operation) !== 'checkpoint'
}

function mustUndo(outcome: Outcome): boolean {
  return outcome.type === 'ended' ? outcome.result.exit_code !== 0 : outcome.started
}

/** A timeout and a signal have exit codes of their own, so 0 is success and nothing else is. */
async function answerOf(outcome: Outcome | undefined): Promise<ExecResult> {
  if (outcome === undefined) throw new AppError('rolled_back', 'The command was undone.')
  if (outcome.type === 'ended') return { ...outcome.result, rolled_back: mustUndo(outcome) }
  throw mustUndo(outcome) ? undone(outcome.error) : outcome.error
}

/** Nobody knows how the command would have ended, but that it has left no trace. */
function undone({ code, message, details, cause }: AppError): AppError {
  return new AppError(code, `${message} The capsule is as it was before the command.`, {
    details: { ...details, rolled_back: true },
    cause,
  })
}

/** What the command did went with its capsule. */
async function answerOfLost(outcome: Outcome | undefined): Promise<ExecResult> {
  throw outcome?.type === 'failed' ? outcome.error : new AppError(lostWithCapsule.code, lostWithCapsule.message)
}

/** By how another process ended the operation; it did not see how the command went. */
async function answerOfEnded(operation: OperationRow, outcome: Outcome | undefined): Promise<ExecResult> {
  throwFailure(operation)
  const isUndone = stepOf(operation) !== 'commit'
  return await answerOf(outcome !== undefined && mustUndo(outcome) === isUndone ? outcome : undefined)
}
