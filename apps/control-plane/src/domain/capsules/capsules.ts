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
import type { Limits } from '../../config.js'
import type { Hosts } from '../../host/hosts.js'
import { audited } from '../../store/audit.js'
import {
  type CapsuleFilter,
  insertCapsule,
  listCapsules,
  liveStates,
  lockCapsule,
  type NewCapsule,
  openAgent,
  transition,
} from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import { findHostOfCapsule } from '../../store/hosts.js'
import { findCreate, findFork, findRunning, insertOperation } from '../../store/operations.js'
import type { Actor, CapsuleRow, OperationRow, SnapshotRow } from '../../store/schema.js'
import { findSnapshotByName, lockSnapshot } from '../../store/snapshots.js'
import type { Placement } from '../hosts/index.js'
import { checkedEgress, checkLimits, reserve } from '../limits/index.js'
import {
  decodeCursor,
  encodeCursor,
  findEarlier,
  insertNew,
  LEASE_MS,
  newOperation,
  type Operations,
  resultOf,
  type Submission,
  submit,
} from '../operations/index.js'
import type { Keyring } from '../secrets/index.js'
import { newAccessToken } from './access-token.js'
import { hashWithRules, sealRules, splitWish } from './egress-rules.js'
import { type Life, lifeColumns } from './life.js'
import type { RequestOptions } from './lifecycle.js'
import { needCapsule } from './need-capsule.js'
import { portTokenFor } from './port-token.js'
import { checkReferences } from './rule-secrets.js'

interface CapsulesDeps {
  readonly db: Db
  readonly host: Hosts
  readonly operations: Operations
  readonly limits: Limits
  readonly placement: Placement
  readonly keyring: Keyring
  /** How long a call waits for its capsule to start. */
  readonly startWaitMs: number
}

/** What is to be made: what the API's own clients may ask for, and what other doors add. */
export interface CapsuleSpec extends CreateCapsuleInput {
  /** @default it lives until somebody destroys it */
  readonly life?: Life | undefined
  /** Whether holders of a token of its own may speak with its guest agent. @default false */
  readonly agentAccess?: boolean | undefined
  /** `template` is an image of a registry, which the host has by that name and nobody else may ask for. Sizes are given. @default false */
  readonly isFetched?: boolean | undefined
  /** Only of a snapshot whose files are, byte by byte, what was saved. @default false */
  readonly isVerified?: boolean | undefined
  /** The host that has the image. @default any may have it */
  readonly hostId?: string | undefined
  /** As whom and where commands run, where neither the request nor the template says so. */
  readonly fallback?: { readonly user: string; readonly cwd: string } | undefined
}

interface DestroyOptions extends RequestOptions {
  /** Why, for records of it. @default somebody asked */
  readonly reason?: string
  /** Looked at in the moment of the decision; when it says no, nothing happens but a `conflict`. */
  readonly onlyIf?: (row: CapsuleRow) => boolean
}

/** How a create is asked for. */
export interface CreateOptions {
  /**
   * Of the team: a second create with the same key gives the first one's capsule, or its error. A failure that may pass gives
   * the key back.
   */
  readonly idempotencyKey: string | undefined
  /** How long the answer may wait for `running`. */
  readonly waitMs: number
  /** Who asks. */
  readonly actor: Actor
  /** Is done in the transaction that makes the capsule; what it throws keeps that from being made. */
  readonly within?: (tx: Db, capsuleId: string) => Promise<void>
}

/** Which capsules, and from where on. */
interface PageQuery extends Omit<CapsuleFilter, 'beyondSeq'> {
  /** Of the page before. */
  readonly cursor: string | undefined
}

interface CapsulePage {
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
  async create(teamId: string, input: CapsuleSpec, options: CreateOptions): Promise<CapsuleRow> {
    const { operations, db, keyring } = this.#deps
    const { idempotencyKey: key, actor, within } = options
    const submission = { teamId, kind: 'create', hash: hashWithRules(keyring, input), key, actor } as const
    const earlier = await findEarlier(db, submission)
    const operation = earlier ?? (await this.#submit(submission, await this.#draft(teamId, input), within))
    await resultOf(operations, operation, options.waitMs)
    return await this.get(teamId, operation.capsule_id)
  }

  async #submit(
    submission: Submission,
    { capsule, params, boundTo, hostTags }: Draft,
    within: CreateOptions['within'],
  ): Promise<OperationRow> {
    const { vcpus, memory_mib: memoryMib, snapshot_id: snapshotId, team_id: teamId } = capsule
    const { limits, placement } = this.#deps
    return await submit(this.#deps, submission, async (tx) => {
      await reserve(tx, teamId, limits, { running: 1, vcpus, memoryMib, added: 1 })
      if (snapshotId && (await lockSnapshot(tx, snapshotId))?.state !== 'ready') throw noTemplate(capsule.template)
      await within?.(tx, capsule.id)
      // Last, for until the end of the transaction nobody else places one.
      const { hostId, because } = await placement.place(tx, { ...capsule, memoryMib, hostId: boundTo, hostTags })
      const row = await insertCapsule(tx, { ...capsule, host_id: hostId })
      if (because === undefined) return await insertNew(tx, submission, row, params)
      const mayMove = (boundTo ?? undefined) === undefined
      return await insertNew(tx, submission, row, { ...params, hostId, because, ...(mayMove && { mayMove, hostTags }) })
    })
  }

  /** The row to be, and the built-in template below its snapshot, if it starts from one. */
  async #draft(teamId: string, input: CapsuleSpec): Promise<Draft> {
    const { db, limits, keyring } = this.#deps
    const labels = { ...input.metadata, ...input.labels }
    const snapshot = await findSnapshotByName(db, teamId, input.template)
    const defaults = snapshot?.defaults ?? undefined
    const envs = { ...defaults?.envs, ...input.envs }
    checkLimits({ ...input, labels, envs }, limits)
    const egress = input.egress && splitWish(checkedEgress(input.egress), () => [])
    const rules = egress?.rules ?? []
    const id = capsuleIds.create()
    const sizes = snapshot === undefined ? await this.#templateSizes(input) : snapshotSizes(snapshot, input)
    const isVerified = input.isVerified === true && snapshot !== undefined
    return {
      params: snapshot && { template: snapshot.template, ...(isVerified && { isVerified }) },
      hostTags: input.host_tags,
      // An older control plane notes no host of a snapshot; it is where its capsule was.
      boundTo: input.hostId ?? (snapshot && (snapshot.host_id ?? (await findHostOfCapsule(db, snapshot.capsule_id)))),
      capsule: {
        ...sizes,
        id,
        team_id: teamId,
        name: input.name ?? null,
        template: input.template,
        snapshot_id: snapshot?.id ?? null,
        host_tags: input.host_tags ?? null,
        timeout_sec: input.timeout_sec,
        auto_resume: input.auto_resume,
        port_token: portTokenFor(input.port_access),
        access_token: input.agentAccess === true ? newAccessToken() : null,
        ...lifeColumns(input.life),
        labels: JSON.stringify(labels),
        envs: JSON.stringify(envs),
        egress: egress === undefined ? null : JSON.stringify(egress.policy),
        egress_rules: sealRules(keyring, id, rules),
        // A host that has forgotten what they set says 0.
        ...(rules.length > 0 && { egress_revision: 1 }),
        secret_names: await checkReferences(db, teamId, rules, null),
        default_user: input.user ?? defaults?.user ?? input.fallback?.user ?? '',
        default_cwd: input.cwd ?? defaults?.cwd ?? input.fallback?.cwd ?? '',
        state: 'pending',
        desired_state: 'running',
      },
    }
  }

  async #templateSizes(input: CapsuleSpec) {
    const template = input.isFetched === true ? undefined : await this.#deps.host.template(input.template)
    return {
      vcpus: input.vcpus ?? (template?.defaultVcpus || capsuleDefaults.vcpus),
      memory_mib: input.memory_mb ?? (template?.defaultMemoryMib || capsuleDefaults.memoryMib),
      disk_size_mib: input.disk_size_mb ?? this.#deps.limits.defaultDiskSizeMib,
    }
  }

  /** @throws AppError `capsule_not_found` */
  async get(teamId: string, id: string): Promise<CapsuleRow> {
    return await needCapsule(this.#deps.db, teamId, id)
  }

  /** The capsule with a token for its guest agent: its own, or a first one. */
  async withAgentAccess(row: CapsuleRow, actor: Actor): Promise<CapsuleRow> {
    if (row.access_token !== null) return row
    const { db } = this.#deps
    const opened = await audited(
      db,
      (tx) => openAgent(tx, row.id, newAccessToken()),
      () => ({
        teamId: row.team_id,
        actor,
        action: 'capsule.update',
        resource: { type: 'capsule', id: row.id },
        details: { fields: 'access_token' },
      }),
    )
    return opened ?? (await this.get(row.team_id, row.id)) // somebody else was first
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

  /** Waits for the create of a capsule, or the fork that makes it; many clients use one as soon as they know its id. */
  async #started(teamId: string, id: string): Promise<CapsuleRow> {
    const { db, operations, startWaitMs } = this.#deps
    const { parent_id: parentId } = await this.get(teamId, id)
    const operation = parentId === null ? await findCreate(db, id) : await findFork(db, parentId, id)
    if (operation !== undefined) await resultOf(operations, operation, startWaitMs)
    return await this.get(teamId, id)
  }

  /**
   * A page, newest first; the cursor stays valid while capsules come and go.
   * @throws AppError `invalid_request` for a cursor that is none
   */
  async list(teamId: string, query: ListCapsulesQuery): Promise<CapsulePage> {
    return await this.page(teamId, {
      states: statesOf(query.status),
      templates: query.template === undefined ? undefined : [query.template],
      name: query.name,
      labels: labelsOf(query.label),
      cursor: query.cursor,
      limit: query.limit,
    })
  }

  /** The same by any filter and in either order. @throws AppError `invalid_request` for a cursor that is none */
  async page(teamId: string, { cursor, limit, ...filter }: PageQuery): Promise<CapsulePage> {
    const beyondSeq = cursor === undefined ? undefined : decodeCursor(cursor)
    const rows = await listCapsules(this.#deps.db, teamId, { ...filter, beyondSeq, limit: limit + 1 })
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    return { rows: page, nextCursor: last === undefined ? undefined : encodeCursor(last.seq) }
  }

  /**
   * Ends a capsule and removes its files; idempotent, and one under way is joined. Waits up to `waitMs`; when the host is away the
   * wish stays recorded and is carried out when it answers.
   * @throws AppError `capsule_not_found`, `conflict`
   */
  async destroy(teamId: string, id: string, options: DestroyOptions): Promise<void> {
    const { db, operations } = this.#deps
    const { waitMs, actor, reason, onlyIf = () => true } = options
    const params = reason === undefined ? undefined : { reason }
    for (;;) {
      const row = await this.get(teamId, id)
      if (row.state === 'stopped') return
      const running = row.state === 'stopping' ? await findRunning(db, id, ['destroy']) : undefined
      if (running !== undefined) {
        await operations.wait(running.id, waitMs)
        return
      }
      const operation = await db.transaction().execute(async (tx) => {
        const locked = await lockCapsule(tx, id)
        if (locked === undefined || locked.generation !== row.generation) return undefined
        if (!onlyIf(locked)) throw new AppError('conflict', 'The capsule has changed in the meantime.')
        const stopping = await transition(tx, locked, 'destroy', { desired_state: 'stopped' })
        if (stopping === undefined) return undefined
        return await insertOperation(tx, newOperation('destroy', stopping, { hash: '', actor, params }), LEASE_MS)
      })
      if (operation === undefined) continue
      operations.start(operation)
      await operations.wait(operation.id, waitMs)
      return
    }
  }
}

interface Draft {
  readonly capsule: NewCapsule
  /** Of its operation: what the executor needs that the row does not say. */
  readonly params: Readonly<Record<string, unknown>> | undefined
  /** The host that has what it is made of, where one alone has. */
  readonly boundTo: string | null | undefined
  /** That its host must have. */
  readonly hostTags: readonly string[] | undefined
}

/** A snapshot has memory and disk of its own sizes. @throws AppError `invalid_request`, `template_not_found` */
function snapshotSizes(snapshot: SnapshotRow, input: CreateCapsuleInput) {
  if (snapshot.state !== 'ready') throw noTemplate(input.template)
  const { vcpus, memory_mib, disk_size_mib } = snapshot
  for (const [field, own] of [
    ['vcpus', vcpus],
    ['memory_mb', memory_mib],
    ['disk_size_mb', disk_size_mib],
  ] as const) {
    const asked = input[field]
    if (asked === undefined || asked === own) continue
    const message = `${field} of the snapshot ${snapshot.name} is ${own} and cannot be ${asked}; leave it out.`
    throw new AppError('invalid_request', message, { details: { field, value: own } })
  }
  return { vcpus, memory_mib, disk_size_mib }
}

function noTemplate(name: string): AppError {
  return new AppError('template_not_found', `There is no template "${name}".`, { details: { template: name } })
}

function statesOf(wanted: ListCapsulesQuery['status']): readonly CapsuleState[] | undefined {
  if (wanted === undefined) return liveStates
  if (wanted.includes('all')) return undefined
  // A status means every state shown as it; an exact transitional state means itself.
  return capsuleStates.filter((state) => wanted.includes(state) || wanted.includes(wireStatus(state)))
}

function labelsOf(pairs: ListCapsulesQuery['label']): Record<string, string> {
  return Object.fromEntries(
    (pairs ?? []).map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
  )
}
