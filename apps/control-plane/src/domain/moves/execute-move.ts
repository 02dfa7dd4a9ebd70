import { AppError } from '@wrenn/base'
import { errorKind } from '@wrenn/protocol'
import { findAnyCapsule, transition } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import {
  type Conclusion,
  findOperation,
  findRunning,
  finishOperation,
  insertOperation,
  lockOperation,
  setParams,
} from '../../store/operations.js'
import type { CapsuleRow, OperationKind, OperationRow } from '../../store/schema.js'
import { answer } from '../capsules/index.js'
import {
  type Executor,
  type ExecutorDeps,
  failure,
  hashJson,
  LEASE_MS,
  newOperation,
  type Operations,
  overtaken,
} from '../operations/index.js'

const WHAT = 'it was moved'
/** So long a capsule that ran, and that no host could have, is tried anew: nobody else wakes it. */
const KEEP_TRYING_MS = 3600_000

/** What a move knows; enough for another process to go on with it. */
export interface MoveParams {
  /** The host that the capsule is to leave; `null`: it was on none. */
  readonly from: string | null
  /** Whether it runs again afterwards: it did, and nobody has wanted it asleep since. */
  readonly wakes: boolean
  /** The host that is promised to it, until it is there. */
  readonly hostId?: string
  readonly because?: string
  /** The host that was asked for. */
  readonly on?: string
  /** The operation that is the step under way. */
  readonly child?: string
  /** Hosts that could not have it. */
  readonly tried?: readonly string[]
  /** Why it does not go where it should; it is brought back. */
  readonly failed?: NonNullable<Conclusion['error']>
}

/** As {@link MoveParams} are written. */
export function moveParamsOf({ params }: OperationRow): MoveParams {
  return params as unknown as MoveParams // nobody else writes them
}

interface MoveDeps extends Pick<ExecutorDeps, 'db' | 'host' | 'placement'> {
  readonly operations: Pick<Operations, 'start' | 'wait' | 'isStopping'>
}

/** What comes next: a step of its own operation, a look in a while, or nothing. */
type Next = { readonly child: string; readonly start?: OperationRow } | 'retry' | 'done'

/**
 * Moves a capsule by having it hibernate and, where it ran, resumed on another host: each is an operation of its own, written in the same transaction as the note
 * that it is the step under way, so that a process that dies at any point leaves to the next one what it would have done. What comes next is decided by where
 * the capsule is, whoever else has moved it.
 */
export function moveExecutor(deps: MoveDeps): Executor {
  const { db, operations } = deps
  return async ({ id }) => {
    for (;;) {
      const next = await db.transaction().execute((tx) => decide(tx, deps, id))
      if (typeof next === 'string') return next
      if (next.start !== undefined) operations.start(next.start)
      while ((await operations.wait(next.child, LEASE_MS)) === undefined) if (operations.isStopping) return 'retry'
    }
  }
}

async function decide(tx: Db, deps: MoveDeps, id: string): Promise<Next> {
  const move = await lockOperation(tx, id)
  if (move === undefined) return 'done'
  const params = moveParamsOf(move)
  const child = params.child === undefined ? undefined : await findOperation(tx, params.child)
  if (child?.state === 'running') return { child: child.id }
  const row = await findAnyCapsule(tx, move.capsule_id)
  const end = async (conclusion: Conclusion): Promise<'done'> => {
    await finishOperation(tx, id, conclusion)
    return 'done'
  }
  // It was where it should be when it was asked for.
  if (row !== undefined && params.on !== undefined && params.on === params.from) return await end(answer(row))
  switch (row?.state) {
    case 'running':
      if (row.host_id !== params.from) return await end(answer(row))
      return await end(failed(params.failed ?? child?.error ?? undefined))
    case 'paused':
      return await afterPaused(tx, { move, row, child, end })
    case 'hibernated':
      return params.wakes ? await wake(tx, deps, { move, row, child, end }) : await end(answer(row))
    case 'pausing':
    case 'resuming':
      return await follow(tx, row)
    case 'missing':
      // Its host may have it still: whether it ran there when it answers, or is lost, decides.
      return 'retry'
    default:
      return await end(failure(overtaken(row, WHAT)))
  }
}

interface Step {
  readonly move: OperationRow
  readonly row: CapsuleRow
  /** That has ended. */
  readonly child: OperationRow | undefined
  readonly end: (conclusion: Conclusion) => Promise<'done'>
}

/** Somebody else has it on its way. */
async function follow(tx: Db, row: CapsuleRow): Promise<Next> {
  const other = await findRunning(tx, row.id, ['pause', 'hibernate', 'resume', 'rollback'])
  return other === undefined ? 'retry' : { child: other.id }
}

/** Its state could not be stored, or it has come to another host and does not run there. One that ran is woken where it is. */
async function afterPaused(tx: Db, { move, row, child, end }: Step): Promise<Next> {
  const params = moveParamsOf(move)
  const error = params.failed ?? child?.error ?? undefined
  if (!params.wakes || row.host_id !== params.from || child?.kind === 'resume') return await end(failed(error))
  const resuming = await transition(tx, row, 'resume', { desired_state: 'running' })
  if (resuming === undefined) return 'retry'
  return await step(tx, move, resuming, { ...params, failed: failed(error).error }, lifeLeft(row))
}

/** Lets it go on where it was promised a place, else where there is one, else where it was. */
async function wake(tx: Db, deps: MoveDeps, { move, row, child, end }: Step): Promise<Next> {
  const params = moveParamsOf(move)
  const lastHost = child?.kind === 'resume' ? child.params?.hostId : undefined
  const tried = [...new Set([...(params.tried ?? []), ...(typeof lastHost === 'string' ? [lastHost] : [])])]
  const chosen = await choose(tx, deps, row, { ...params, tried })
  if (chosen instanceof AppError) {
    // An object store or a host that was away for a while comes back.
    const mayPass = errorKind((child?.error ?? chosen).code).retryable
    if (mayPass && Date.now() - move.created_at.getTime() < KEEP_TRYING_MS) {
      const { from, wakes, on, because } = params
      await setParams(tx, move.id, { from, wakes, on, because, hostId: on ?? params.hostId })
      return 'retry'
    }
    const message = `${chosen.message} The capsule is hibernated, and goes on when it is resumed.`
    return await end(failure(new AppError(chosen.code, message, { details: chosen.details ?? {} })))
  }
  const { hostId, because, failed: why = params.failed } = chosen
  const resuming = await transition(tx, row, 'resume', { desired_state: 'running', host_id: hostId })
  if (resuming === undefined) return 'retry'
  const note = { ...params, tried, hostId, because, ...(why && { failed: why }) }
  return await step(tx, move, resuming, note, { hostId, because, ...lifeLeft(row) })
}

interface Choice {
  readonly hostId: string
  readonly because: string
  /** It is brought back where it was. */
  readonly failed?: NonNullable<Conclusion['error']> | undefined
}

async function choose(
  tx: Db,
  { host: hosts, placement }: MoveDeps,
  row: CapsuleRow,
  { hostId: promised, because: why, on, from, tried = [], failed: earlier }: MoveParams,
): Promise<Choice | AppError> {
  const wanted = { ...wantedBy(row), not: refusals(from, tried) }
  const place = async (more: { readonly on?: string | undefined; readonly isPromised?: boolean }): Promise<Choice> => {
    const { hostId, because = '' } = await placement.place(tx, { ...wanted, ...more })
    if (hostId === null) throw new Error('a platform with one host moves nothing')
    return { hostId, because: more.isPromised === true ? (why ?? because) : because }
  }
  let error: AppError | undefined
  if (earlier === undefined) {
    const ways = [
      ...(promised === undefined ? [] : [{ on: promised, isPromised: true }]),
      ...(on === undefined ? [{}] : []),
    ]
    for (const way of ways) {
      try {
        return await place(way)
      } catch (thrown) {
        error = AppError.from(thrown)
        if (!AppError.is(error, 'no_hosts_available', 'host_unavailable', 'host_not_found')) throw error
      }
    }
  }
  error ??=
    earlier === undefined
      ? new AppError('no_hosts_available', 'No other host could have it.')
      : new AppError(earlier.code, earlier.message, { details: earlier.details ?? {} })
  const home = from === null || tried.includes(from) ? undefined : hosts.get(from)
  if (home === undefined || home.isSilent || from === null) return error
  return {
    hostId: from,
    because: 'it was there, and no other host could have it',
    failed: earlier ?? failure(error).error,
  }
}

/** What a host is chosen by. */
export function wantedBy({ vcpus, memory_mib: memoryMib, template, host_tags: hostTags }: CapsuleRow) {
  return { vcpus, memoryMib, template, isStored: true, hostTags: hostTags ?? [] }
}

/** Why these hosts do not get a capsule that is moved. */
export function refusals(from: string | null, tried: readonly string[] = []): ReadonlyMap<string, string> {
  const all = new Map(tried.map((id) => [id, 'could not have it']))
  return from === null ? all : all.set(from, 'is where it is')
}

/** A life that has an end goes on instead of beginning anew. */
function lifeLeft({ lifetime_sec: lifetime, ends_at: endsAt }: CapsuleRow): { readonly lifetimeSec?: number } {
  if (lifetime === null || endsAt === null) return {}
  return { lifetimeSec: Math.max(1, Math.ceil((endsAt.getTime() - Date.now()) / 1000)) }
}

/** The capsule, which is on its way already, is resumed as the next step. */
async function step(tx: Db, move: OperationRow, row: CapsuleRow, note: object, params: object): Promise<Next> {
  const operation = await insertStep(tx, 'resume', row, { params, actor: move.actor })
  await setParams(tx, move.id, { ...note, child: operation.id })
  return { child: operation.id, start: operation }
}

/** An operation that is a part of a move. */
export async function insertStep(
  tx: Db,
  kind: OperationKind,
  row: CapsuleRow,
  { params, actor }: { readonly params: object; readonly actor: OperationRow['actor'] },
): Promise<OperationRow> {
  const request = { hash: hashJson({ id: row.id }), params: { ...params }, actor: actor ?? undefined }
  const operation = await insertOperation(tx, newOperation(kind, row, request), LEASE_MS)
  if (operation === undefined) throw new Error('an operation without a key was there already')
  return operation
}

/** The end of a move whose step failed for that. */
function failed(error: Conclusion['error']): Conclusion & { readonly error: NonNullable<Conclusion['error']> } {
  const because = error ?? {
    code: 'conflict' as const,
    message: 'The capsule was used while it was to be moved: it goes on where it is.',
  }
  return { error: because, releaseKey: errorKind(because.code).retryable }
}
