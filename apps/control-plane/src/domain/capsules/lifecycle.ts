import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, capsuleIds } from '@wrenn/base'
import {
  type Capsule,
  type ForkInput,
  type ForkResult,
  isAsleep,
  isUsable,
  nextState,
  type PauseReason,
  type ResumeInput,
  type UpdateCapsuleInput,
} from '@wrenn/protocol'
import type { Limits } from '../../config.js'
import type { Hosts } from '../../host/hosts.js'
import { audited } from '../../store/audit.js'
import { findCapsules, insertCapsule, lockCapsule, patchCapsule, transition } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { findRunning, listFailedHosts, stopMoveWaking } from '../../store/operations.js'
import type { Actor, CapsuleRow, OperationRow } from '../../store/schema.js'
import type { Placement } from '../hosts/index.js'
import { checkLimits, reserve } from '../limits/index.js'
import {
  hashJson,
  insertNew,
  joinRunning,
  type Operations,
  resultOf,
  type Submission,
  submit,
} from '../operations/index.js'
import type { Keyring } from '../secrets/index.js'
import { newAccessToken } from './access-token.js'
import { toCapsule } from './capsule-view.js'
import { copyRules } from './egress-rules.js'
import type { ForkParams } from './execute-fork.js'
import { requireStorable } from './execute-hibernate.js'
import { type Life, lifeColumns, lifeOf } from './life.js'
import { illegal, mayHaveSavedState, needCapsule, needLegal } from './need-capsule.js'
import { holdCheckpoint } from './need-checkpoint.js'
import { portTokenFor } from './port-token.js'

const LOOK_EVERY_MS = 50
/** A capsule that is taken away this often while it is being woken belongs to somebody who wants it to sleep. */
const MAX_WAKE_ATTEMPTS = 5
/** Why nothing hibernates. */
export const NO_STORE =
  'This platform has no object store, where capsules hibernate: set WRENN_OBJECT_STORE for its control planes and hosts.'
/** The same. */
export const NO_KEY =
  'This platform has no key, by which hibernated capsules are encrypted: set WRENN_ENCRYPTION_KEY for its control planes.'

/** What moves of capsules are decided and written with. */
export interface LifecycleDeps {
  readonly db: Db
  readonly host: Hosts
  readonly operations: Operations
  readonly limits: Limits
  /** Told when it was changed who may reach the ports of a capsule. */
  readonly onPortAccess?: (id: string) => void
}

interface OwnDeps extends LifecycleDeps {
  readonly placement: Placement
  readonly keyring: Keyring
  /** Whether there is an object store. */
  readonly canHibernate: boolean
}

/** How a move is asked for. */
export interface RequestOptions {
  /** How long the answer may wait for the end; the work goes on afterwards. */
  readonly waitMs: number
  /** Of the team and the kind of move: the same key finds the same operation. @default every request is one of its own */
  readonly idempotencyKey?: string | undefined
  /** Who asks. @default the platform itself */
  readonly actor?: Actor | undefined
}

export interface ResumeOptions extends RequestOptions {
  /** @default 'memory' */
  readonly from?: ResumeInput['from']
  /** Of a capsule whose life has an end: how long it lives this time. @default its own, but five minutes at least */
  readonly lifetimeSec?: number | undefined
}

/** How a sleeping capsule is woken. */
export interface WakeOptions {
  readonly waitMs: number
  readonly from?: ResumeInput['from']
  readonly lifetimeSec?: number | undefined
  /** @default the platform itself */
  readonly actor?: Actor | undefined
}

/** What copies are to be: what the API's own clients may ask for, and what other doors add. */
export interface ForkSpec extends ForkInput {
  /** @default that of the source */
  readonly life?: Life | undefined
  /** Whether each gets a token for its guest agent although the source has none. @default false */
  readonly agentAccess?: boolean | undefined
}

interface PauseOptions extends RequestOptions {
  /** @default 'request' */
  readonly reason?: PauseReason
  /** Looked at in the moment of the decision; when it says no, nothing happens but a `conflict`. */
  readonly onlyIf?: (row: CapsuleRow) => boolean
}

interface HibernateOptions extends RequestOptions {
  /** For records of it. @default somebody asked */
  readonly reason?: string
  /** Looked at in the moment of the decision; when it says no, nothing happens but a `conflict`. */
  readonly onlyIf?: (row: CapsuleRow) => boolean
}

interface Forked {
  readonly result: ForkResult
  /** Whether all copies run. */
  readonly isReady: boolean
}

/** Moves and copies capsules; every move is an operation that ends though its caller leaves. */
export class Lifecycle {
  readonly #deps: OwnDeps

  constructor(deps: OwnDeps) {
    this.#deps = deps
  }

  /** Whether capsules of this platform can hibernate. */
  get canHibernate(): boolean {
    return this.#deps.canHibernate && !this.#deps.keyring.isEmpty
  }

  /**
   * Saves a running capsule and gives its machine back. One that is under way is joined.
   * @throws AppError `capsule_not_found`, `invalid_state`, `idempotency_mismatch`, or why it failed
   */
  async pause(teamId: string, id: string, options: PauseOptions): Promise<Capsule> {
    const { reason = 'request', onlyIf = () => true } = options
    const { idempotencyKey: key, actor } = options
    const submission = { teamId, kind: 'pause', hash: hashJson({ id }), key, actor } as const
    const operation = await submit(this.#deps, submission, async (tx) => {
      // What is asked of a row must still be so when it moves.
      if (options.onlyIf !== undefined) await lockCapsule(tx, id)
      const row = await needCapsule(tx, teamId, id)
      const params = { reason }
      const move = await stopWaking(tx, row)
      if (move !== undefined) return { operation: move, isNew: false }
      if (row.state === 'pausing') {
        return (await joinRunning(tx, submission, row)) ?? (await insertNew(tx, submission, row, params))
      }
      needLegal(row, 'pause')
      if (!onlyIf(row)) throw new AppError('conflict', 'The capsule was used in the meantime.')
      const pausing = await transition(tx, row, 'pause', { desired_state: 'paused' })
      return pausing === undefined ? undefined : await insertNew(tx, submission, pausing, params)
    })
    return await this.#answer(operation, options.waitMs)
  }

  /**
   * Stores a capsule's state away from its host, which keeps nothing of it; a running one is paused first. Until it is stored it stays `paused` and can be
   * resumed, which ends this with `conflict`. One that is under way is joined.
   * @throws AppError `capsule_not_found`, `invalid_state`, `conflict`, `not_supported` without an object store or key, `idempotency_mismatch`, or why it
   * failed
   */
  async hibernate(teamId: string, id: string, options: HibernateOptions): Promise<Capsule> {
    const { idempotencyKey: key, actor, reason, onlyIf = () => true } = options
    if (!this.#deps.canHibernate) await this.#refuse(teamId, id, NO_STORE)
    if (this.#deps.keyring.isEmpty) await this.#refuse(teamId, id, NO_KEY)
    const submission = { teamId, kind: 'hibernate', hash: hashJson({ id }), key, actor } as const
    const operation = await submit(this.#deps, submission, async (tx) => {
      const row = await needCapsule(tx, teamId, id)
      await stopWaking(tx, row)
      const joined = await joinRunning(tx, submission, row)
      if (joined !== undefined) return joined
      needLegal(row, 'hibernate')
      if (!onlyIf(row)) throw new AppError('conflict', 'The capsule was used in the meantime.')
      await requireStorable(tx, row)
      const moved = await transition(tx, row, 'hibernate', { desired_state: 'paused' })
      const params = { stateId: `state-${randomUUID()}`, ...(reason && { reason }) }
      return moved === undefined ? undefined : await insertNew(tx, submission, moved, params)
    })
    return await this.#answer(operation, options.waitMs)
  }

  /**
   * Lets a paused or hibernated capsule run again, or one that ended with a saved state behind it; with `from: 'disk'` without its memory. One
   * that is under way is joined.
   * @throws AppError `capsule_not_found`, `invalid_state`, `conflict`, `pool_exhausted`, `idempotency_mismatch`, or why it failed
   */
  async resume(teamId: string, id: string, options: ResumeOptions): Promise<Capsule> {
    const moved = await this.#moveEnds(teamId, id, options)
    if (moved !== undefined) return moved
    const params = resumeParamsOf(options)
    const submission = {
      teamId,
      kind: 'resume',
      hash: hashJson({ id, ...params }),
      key: options.idempotencyKey,
      actor: options.actor,
    } as const
    const operation = await submit(this.#deps, submission, async (tx) => {
      const row = await needCapsule(tx, teamId, id)
      if (row.state === 'resuming') {
        if (options.from === 'disk') await refuseToJoinFromMemory(tx, id)
        return (await joinRunning(tx, submission, row)) ?? (await insertNew(tx, submission, row, params))
      }
      needLegal(row, 'resume')
      if (row.state === 'error' && !mayHaveSavedState(row)) {
        throw new AppError('invalid_state', 'The capsule has ended and has no saved state to resume from.')
      }
      const demand = { running: 1, vcpus: row.vcpus, memoryMib: row.memory_mib, added: 0 }
      await reserve(tx, teamId, this.#deps.limits, demand)
      const placed = row.stored_state === null ? undefined : await this.#place(tx, row)
      const to = placed && { host_id: placed.hostId }
      const resuming = await transition(tx, row, 'resume', { desired_state: 'running', ...to })
      return resuming === undefined ? undefined : await insertNew(tx, submission, resuming, { ...params, ...placed })
    })
    this.#deps.host.forget(id)
    return await this.#answer(operation, options.waitMs)
  }

  /**
   * One that is being moved goes on by itself, and where it is it would only be in the way of that.
   * @returns the capsule after that; `undefined`: nothing wakes it
   */
  async #moveEnds(teamId: string, id: string, { from, waitMs }: ResumeOptions): Promise<Capsule | undefined> {
    const { db, operations } = this.#deps
    await needCapsule(db, teamId, id)
    const move = await findRunning(db, id, ['move'])
    if (move?.params?.wakes !== true) return undefined
    const ended = await operations.wait(move.id, waitMs)
    const row = await needCapsule(db, teamId, id)
    return ended === undefined || (isUsable(row.state) && from !== 'disk') ? toCapsule(row) : undefined
  }

  /** What is not there, or is another team's, is said to be so first. @throws AppError `capsule_not_found`, `not_supported` for what is lacking */
  async #refuse(teamId: string, id: string, lack: string): Promise<never> {
    await needCapsule(this.#deps.db, teamId, id)
    throw new AppError('not_supported', lack)
  }

  /** Where its state goes that is in the store: to a host that could not have it, only when no other one can. */
  async #place(tx: Db, row: CapsuleRow) {
    const { placement } = this.#deps
    const { vcpus, memory_mib: memoryMib, template, host_tags: hostTags } = row
    const wanted = { vcpus, memoryMib, template, isStored: true, hostTags: hostTags ?? [] }
    const place = async (not: ReadonlyMap<string, string>) => await placement.place(tx, { ...wanted, not })
    const failed = new Map([...(await listFailedHosts(tx, row.id))].map((id) => [id, 'could not have it lately']))
    try {
      return await place(failed)
    } catch (error) {
      if (failed.size === 0 || !AppError.is(error, 'no_hosts_available')) throw error
      return await place(new Map())
    }
  }

  /**
   * Resumes a capsule that is asleep, also one that is just being paused, and waits until it runs.
   * @throws AppError `timeout`, `invalid_state` and those of `resume`
   */
  async wake({ id, team_id: teamId }: CapsuleRow, options: WakeOptions): Promise<CapsuleRow> {
    const { waitMs, ...how } = options
    const deadline = performance.now() + waitMs
    for (let attempts = 0; ; ) {
      const row = await needCapsule(this.#deps.db, teamId, id)
      if (isUsable(row.state)) return row
      if (!isAsleep(row.state)) throw new AppError('invalid_state', `The capsule is ${row.state}, not running.`)
      const left = deadline - performance.now()
      if (left <= 0) {
        throw new AppError('timeout', `The capsule did not wake within ${waitMs / 1000} s (WRENN_START_WAIT_SEC).`)
      }
      if (row.state === 'pausing') await this.#pauseEnds(id, left)
      else {
        attempts++
        await this.resume(teamId, id, { ...how, waitMs: left }).catch((error: unknown) => {
          // It moved between the look and the request; the next look says where it is.
          if (!AppError.is(error, 'invalid_state') || attempts >= MAX_WAKE_ATTEMPTS) throw error
        })
      }
    }
  }

  async #pauseEnds(id: string, waitMs: number): Promise<void> {
    const { db, operations } = this.#deps
    const pause = await findRunning(db, id, ['pause'])
    if (pause === undefined) await delay(LOOK_EVERY_MS)
    else await operations.wait(pause.id, waitMs)
  }

  /**
   * Running copies of a running or paused capsule, or of how it was at a checkpoint, memory included: all of them or none.
   * @throws AppError `capsule_not_found`, `checkpoint_not_found`, `invalid_state`, `invalid_request`, `pool_exhausted`, `idempotency_mismatch`, or
   * why it failed
   */
  async fork(teamId: string, id: string, input: ForkSpec, options: RequestOptions): Promise<Forked> {
    const { limits } = this.#deps
    checkLimits({ labels: input.labels ?? {}, envs: input.envs }, limits)
    const submission = {
      teamId,
      kind: 'fork',
      hash: hashJson({ id, ...input }),
      key: options.idempotencyKey,
      actor: options.actor,
    } as const
    const operation = await submit(this.#deps, submission, async (tx) => {
      const source = await needCapsule(tx, teamId, id)
      needLegal(source, 'fork')
      const { count } = input
      await reserve(tx, teamId, limits, {
        running: count,
        vcpus: count * source.vcpus,
        memoryMib: count * source.memory_mib,
        added: count,
      })
      const forking = await transition(tx, source, 'fork')
      return forking === undefined ? undefined : await this.#insertFork(tx, submission, forking, input)
    })
    return await this.#forked(operation, options.waitMs)
  }

  async #insertFork(tx: Db, submission: Submission, source: CapsuleRow, input: ForkSpec) {
    const copies = Array.from({ length: input.count }, () => capsuleIds.create())
    const envs = { ...source.envs, ...input.envs }
    checkLimits({ labels: {}, envs }, this.#deps.limits)
    for (const [index, copyId] of copies.entries()) {
      await insertCapsule(tx, {
        ...inherited(source),
        id: copyId,
        egress_rules: copyRules(this.#deps.keyring, source, copyId),
        name: input.name === undefined ? null : input.count === 1 ? input.name : `${input.name}-${index + 1}`,
        timeout_sec: input.timeout_sec ?? source.timeout_sec,
        labels: JSON.stringify(input.labels ?? source.labels),
        envs: JSON.stringify(envs),
        ...lifeColumns(input.life ?? lifeOf(source)),
        access_token: source.access_token === null && input.agentAccess !== true ? null : newAccessToken(),
      })
    }
    const point = input.checkpoint === undefined ? undefined : await holdCheckpoint(tx, source.id, input.checkpoint)
    const params: ForkParams = { copies, envs: input.envs, ...(point && { checkpointId: point.id }) }
    return await insertNew(tx, submission, source, params)
  }

  async #forked(operation: OperationRow, waitMs: number): Promise<Forked> {
    const result = await resultOf(this.#deps.operations, operation, waitMs)
    // The executor wrote it in this form.
    if (result !== undefined) return { result: result as unknown as ForkResult, isReady: true }
    const { copies } = operation.params as unknown as ForkParams // as `#insertFork` made it
    const rows = await findCapsules(this.#deps.db, copies)
    return { result: { capsules: rows.map((row) => toCapsule(row)), pause_window_ms: 0, timings: [] }, isReady: false }
  }

  /**
   * Changes name, labels, timeout, auto-resume or who may reach its ports. A new timeout counts from now.
   * @throws AppError `capsule_not_found`, `invalid_state`, `invalid_request`
   */
  async update(teamId: string, id: string, input: UpdateCapsuleInput, actor: Actor): Promise<CapsuleRow> {
    const { db, limits } = this.#deps
    checkLimits({ labels: input.labels ?? {}, envs: {} }, limits)
    const row = await needCapsule(db, teamId, id)
    if (row.state === 'stopping' || row.state === 'stopped') throw illegal(row, 'a change')
    const now = new Date()
    const patch = {
      updated_at: now,
      ...(input.name === undefined ? {} : { name: input.name }),
      ...(input.labels === undefined ? {} : { labels: JSON.stringify(input.labels) }),
      ...(input.auto_resume === undefined ? {} : { auto_resume: input.auto_resume }),
      ...(input.port_access === undefined ? {} : { port_token: portTokenFor(input.port_access, row.port_token) }),
      ...(input.timeout_sec === undefined
        ? {}
        : { timeout_sec: input.timeout_sec, last_active_at: now, awake_because: null }),
    }
    const changed = await audited(
      db,
      (tx) => patchCapsule(tx, id, patch),
      () => ({
        teamId,
        actor,
        action: 'capsule.update',
        resource: { type: 'capsule', id },
        details: { fields: Object.keys(input).sort().join(',') },
      }),
    )
    if (input.port_access !== undefined) this.#deps.onPortAccess?.(id)
    return changed ?? row
  }

  /** The capsule as its operation left it, or as it is when that takes longer. */
  async #answer(operation: OperationRow, waitMs: number): Promise<Capsule> {
    const result = await resultOf(this.#deps.operations, operation, waitMs)
    // The executor wrote it in this form.
    if (result !== undefined) return result.capsule as Capsule
    return toCapsule(await needCapsule(this.#deps.db, operation.team_id, operation.capsule_id))
  }
}

/** A move of the capsule that was to let it run again does not: somebody wants it asleep. @returns that move */
async function stopWaking(tx: Db, { id, state }: CapsuleRow): Promise<OperationRow | undefined> {
  return isAsleep(state) && state !== 'resuming' ? await stopMoveWaking(tx, id) : undefined
}

/** Absent for what resumes and rollbacks have always done, so that their keys stay good. */
export function paramsOf(from: ResumeInput['from'] = 'memory'): { readonly from: 'disk' } | undefined {
  return from === 'disk' ? { from } : undefined
}

function resumeParamsOf({ from, lifetimeSec }: ResumeOptions) {
  const params = { ...paramsOf(from), ...(lifetimeSec === undefined ? {} : { lifetimeSec }) }
  return Object.keys(params).length === 0 ? undefined : params
}

/** Whoever wants the capsule from its disk does not get it from its memory. @throws AppError `conflict` */
async function refuseToJoinFromMemory(tx: Db, id: string): Promise<void> {
  const running = await findRunning(tx, id, ['resume'])
  if (running === undefined || running.params?.from === 'disk') return
  throw new AppError('conflict', 'The capsule is being resumed from its memory. Ask again when that has failed.')
}

/** What a copy has of its source. */
function inherited(source: CapsuleRow) {
  return {
    team_id: source.team_id,
    parent_id: source.id,
    host_id: source.host_id,
    host_tags: source.host_tags,
    snapshot_id: source.snapshot_id,
    template: source.template,
    vcpus: source.vcpus,
    memory_mib: source.memory_mib,
    disk_size_mib: source.disk_size_mib,
    egress: source.egress === null ? null : JSON.stringify(source.egress),
    egress_revision: source.egress_revision,
    secret_names: source.secret_names,
    default_user: source.default_user,
    default_cwd: source.default_cwd,
    auto_resume: source.auto_resume,
    port_token: portTokenFor(source.port_token === null ? 'public' : 'private'),
    state: nextState('pending', 'start') ?? 'pending',
    desired_state: 'running' as const,
  }
}
