import { randomUUID } from 'node:crypto'
import { AppError } from '@wrenn/base'
import type { CapsuleMove } from '@wrenn/protocol'
import { transition } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { findNewest, findRunning } from '../../store/operations.js'
import type { CapsuleRow, OperationRow } from '../../store/schema.js'
import { isStoringHeld } from '../../store/stored-states.js'
import {
  type LifecycleDeps,
  mayHaveSavedState,
  NO_KEY,
  NO_STORE,
  needAnyCapsule,
  needLegal,
  type RequestOptions,
  requireStorable,
} from '../capsules/index.js'
import type { Placement } from '../hosts/index.js'
import { hashJson, insertNew, joinRunning, resultOf, submit } from '../operations/index.js'
import type { Keyring } from '../secrets/index.js'
import { insertStep, type MoveParams, moveParamsOf, refusals, wantedBy } from './execute-move.js'

const ONE_HOST =
  'All capsules of this platform run on its own machine, so there is no other host for one: `wrenn up --remote-host` has them on machines that join.'

interface MovesDeps extends Omit<LifecycleDeps, 'onPortAccess'> {
  readonly placement: Placement
  readonly keyring: Keyring
  /** Whether there is an object store. */
  readonly canHibernate: boolean
}

interface MoveOptions extends RequestOptions {
  /** The host that it shall go to. @default one that has room, as for a create */
  readonly hostId?: string | undefined
}

/** Takes capsules off their hosts, for admins of the platform. */
export class Moves {
  readonly #deps: MovesDeps

  constructor(deps: MovesDeps) {
    this.#deps = deps
  }

  /**
   * Moves a capsule to another host: one that runs goes on there, a paused one hibernates. One that is on no host, or on the one that is asked for, stays as it
   * is. A move that is under way is joined.
   * @throws AppError `capsule_not_found`, `host_not_found`, `no_hosts_available`, `host_unavailable`, `invalid_state`, `conflict`, `in_use`, `not_supported` where there is but
   * one host, no object store or no key, `idempotency_mismatch`, or why it failed
   */
  async move(id: string, options: MoveOptions): Promise<CapsuleMove> {
    const operation = await this.begin(id, options)
    await resultOf(this.#deps.operations, operation, options.waitMs)
    return await this.get(id)
  }

  /** The same without its end. */
  async begin(id: string, { hostId, idempotencyKey: key, actor }: Omit<MoveOptions, 'waitMs'>): Promise<OperationRow> {
    const { db, operations } = this.#deps
    const { team_id: teamId } = await needAnyCapsule(db, id)
    this.requireAble()
    const submission = { teamId, kind: 'move', hash: hashJson({ id, hostId }), key, actor } as const
    let step: OperationRow | undefined
    const operation = await submit(this.#deps, submission, async (tx) => {
      step = undefined
      const row = await needAnyCapsule(tx, id)
      const under = await findRunning(tx, id, ['move'])
      if (under !== undefined) {
        const on = moveParamsOf(under).on
        if (hostId !== undefined && on !== hostId) {
          throw new AppError('conflict', `The capsule is being moved to ${on ?? 'another host'} already.`)
        }
        return await joinRunning(tx, submission, row)
      }
      const begun = await this.#first(tx, row, hostId)
      if (begun === undefined) return undefined
      const { moved, params } = begun
      if (params.child === undefined && begun.stateId !== undefined) {
        step = await insertStep(tx, 'hibernate', moved, { params: { stateId: begun.stateId }, actor: actor ?? null })
      }
      return await insertNew(tx, submission, moved, { ...params, ...(step && { child: step.id }) })
    })
    if (step !== undefined) operations.start(step)
    return operation
  }

  /** How the newest move of a capsule does, or how it ended. @throws AppError `capsule_not_found`; `not_found` when it was not moved */
  async get(id: string): Promise<CapsuleMove> {
    const { db } = this.#deps
    const row = await needAnyCapsule(db, id)
    const operation = await findNewest(db, id, 'move')
    if (operation === undefined) throw new AppError('not_found', `The capsule ${id} was not moved lately.`)
    return toMove(operation, row)
  }

  /** @throws AppError `not_supported`, saying what is lacking */
  requireAble(): void {
    const { host: hosts, canHibernate, keyring } = this.#deps
    if (hosts.only !== undefined) throw new AppError('not_supported', ONE_HOST)
    if (!canHibernate) throw new AppError('not_supported', NO_STORE)
    if (keyring.isEmpty) throw new AppError('not_supported', NO_KEY)
  }

  /** Where it goes, and the capsule on its way. `undefined` when somebody else was faster. */
  async #first(tx: Db, row: CapsuleRow, on: string | undefined): Promise<Begun | undefined> {
    const { host_id: from } = row
    const isThere = row.state === 'hibernated' ? on === undefined : on !== undefined && from === on
    const none: MoveParams = { from, wakes: false, ...(on !== undefined && { on }) }
    if (isThere && ['hibernated', 'running', 'paused'].includes(row.state)) return { moved: row, params: none }
    if (row.state !== 'running' && on !== undefined) {
      const message = `The capsule is ${row.state}: only one that runs goes to a host by name. Any other one goes into the object store, and to a host when it is resumed.`
      throw new AppError('invalid_state', message, { details: { state: row.state } })
    }
    if (row.state === 'error' && mayHaveSavedState(row)) {
      const message =
        'The capsule has ended, and its host may have a saved state of it, or its disk, which would not come along: resume it, and it can be moved; or destroy it.'
      throw new AppError('invalid_state', message, { details: { state: row.state } })
    }
    needLegal(row, 'hibernate')
    if (from !== null && this.#deps.host.get(from)?.isSilent !== false) {
      const message = `${from}, which the capsule is on, does not answer: it can be moved when that does.`
      throw new AppError('host_unavailable', message, { details: { host_id: from } })
    }
    await requireStorable(tx, row)
    if (row.state === 'paused') {
      const under = await findRunning(tx, row.id, ['hibernate'])
      if (under !== undefined) return { moved: row, params: { ...none, child: under.id } }
    }
    const wakes = row.state === 'running'
    // It would be paused until that is over, for half an hour at worst.
    if (wakes && (await isStoringHeld(tx, { team_id: row.team_id, sealed_by: this.#deps.keyring.sealPrefix }))) {
      const message =
        'What the team of the capsule has in the object store is being cleared up, and nothing is stored meanwhile: move it in some minutes.'
      throw new AppError('in_use', message)
    }
    const place = wakes ? await this.#place(tx, row, on) : {}
    const moved = await transition(tx, row, 'hibernate', { desired_state: 'paused' })
    if (moved === undefined) return undefined
    return { moved, params: { ...none, wakes, ...place }, stateId: `state-${randomUUID()}` }
  }

  /** A promise, which counts from the end of this transaction until the capsule is there. */
  async #place(tx: Db, row: CapsuleRow, on: string | undefined) {
    const wanted = { ...wantedBy(row), not: refusals(row.host_id), on }
    const { hostId, because } = await this.#deps.placement.place(tx, wanted)
    return { ...(hostId !== null && { hostId }), ...(because !== undefined && { because }) }
  }
}

interface Begun {
  readonly moved: CapsuleRow
  readonly params: MoveParams
  /** What it hibernates as; absent: somebody has it hibernate already, or there is nothing to do. */
  readonly stateId?: string
}

function toMove(operation: OperationRow, row: CapsuleRow): CapsuleMove {
  const { from, hostId, because } = moveParamsOf(operation)
  const { state, error } = operation
  return {
    id: operation.id,
    capsule_id: operation.capsule_id,
    team_id: operation.team_id,
    state,
    capsule_state: row.state,
    ...(from !== null && { from_host_id: from }),
    ...(hostId !== undefined && { to_host_id: hostId }),
    ...(because !== undefined && { because }),
    ...(row.host_id !== null && { host_id: row.host_id }),
    ...(error !== null && { error: { code: error.code, message: error.message } }),
    created_at: operation.created_at.toISOString(),
    updated_at: operation.updated_at.toISOString(),
  }
}
