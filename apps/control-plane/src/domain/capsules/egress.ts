import { AppError, errorText, type Logger } from '@wrenn/base'
import {
  type EgressPolicy,
  type EgressStatus,
  type Egress as EgressView,
  type EgressWish,
  refusalReasons,
} from '@wrenn/protocol'
import type { Refusal } from '@wrenn/protocol/host'
import type { HostCalls } from '../../host/host.js'
import type { HostClient } from '../../host/transport.js'
import { writeAudit } from '../../store/audit.js'
import { findEgressPending, lockCapsule, patchCapsule } from '../../store/capsules.js'
import { type Db, inTransaction } from '../../store/database.js'
import type { Actor, CapsuleRow } from '../../store/schema.js'
import { checkedEgress } from '../limits/index.js'
import { Rounds } from '../rounds.js'
import type { Keyring, TeamSecrets } from '../secrets/index.js'
import { CARRY_TIMEOUT_MS, carryEgress, isInForce, policyOf, resealAllRules } from './carry-egress.js'
import { openRules, type SecretRule, sealRules, splitWish } from './egress-rules.js'
import { illegal, needCapsule } from './need-capsule.js'
import { toLearned } from './propose-egress.js'
import { checkReferences } from './rule-secrets.js'

const LOOK_EVERY_MS = 1_000
const ASK_TIMEOUT_MS = 2_000
/** Capsules that the host may be busy with, without keeping the others waiting. */
const CARRIED_AT_ONCE = 8
/** What an audit entry tells of a list; the capsule itself has all of it. */
const TOLD_CHARACTERS = 1_000

interface EgressDeps {
  readonly db: Db
  readonly host: HostCalls
  readonly logger: Logger
  readonly keyring: Keyring
  /** Whose changes are told to hosts with the policies that refer to them. */
  readonly secrets: Pick<TeamSecrets, 'noteChanges' | 'resealAll'>
  /** How often the host's policies are looked at, once started. @default 1000 */
  readonly lookEveryMs?: number
}

interface SetOptions {
  /** How long the answer may wait for the host. */
  readonly waitMs: number
  readonly actor: Actor
}

/**
 * What capsules may reach. A change is written first and carried to the host at once; while that is away, or the capsule is being
 * made, it stays on record and is carried there as soon as it can be.
 */
export class Egress {
  readonly #deps: EgressDeps
  readonly #rounds: Rounds
  /** To each host by itself: one that is slow, or away, keeps no other waiting. */
  readonly #carrying = new Map<string | null, Promise<void>>()
  #isResealed = false

  constructor(deps: EgressDeps) {
    this.#deps = deps
    const onFailure = (error: unknown): void => deps.logger.debug({ error: errorText(error) }, 'egress.retry')
    this.#rounds = new Rounds(() => this.#round(), deps.lookEveryMs ?? LOOK_EVERY_MS, onFailure)
  }

  start(): void {
    this.#rounds.start()
  }

  /** Waits for what is being carried. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
    await Promise.all(this.#carrying.values())
  }

  /** @throws AppError `capsule_not_found` */
  async get(teamId: string, id: string): Promise<EgressStatus> {
    const row = await needCapsule(this.#deps.db, teamId, id)
    const [refused, learned] = await Promise.all([
      row.state === 'running' ? this.#refused(id) : [],
      policyOf(row).learn ? this.#learned(id, policyOf(row)) : undefined,
    ])
    return { ...toEgress(row), refused, ...(learned && { learned }) }
  }

  async #refused(id: string): Promise<EgressStatus['refused']> {
    const answer = await this.#ask(id, (client) =>
      client.listRefusals({ capsuleId: id }, { timeoutMs: ASK_TIMEOUT_MS }),
    )
    return answer?.refusals.flatMap(toRefusal) ?? []
  }

  async #learned(id: string, { rules }: EgressPolicy): Promise<EgressStatus['learned']> {
    const answer = await this.#ask(id, (client) =>
      client.listDestinations({ capsuleId: id }, { timeoutMs: ASK_TIMEOUT_MS }),
    )
    return answer && toLearned(answer.destinations, answer.isComplete, rules)
  }

  /** Nothing where the host cannot say: what the policy is does not hang on it. */
  async #ask<T>(capsuleId: string, ask: (client: HostClient) => Promise<T>): Promise<T | undefined> {
    const { host, logger } = this.#deps
    try {
      return await host.call(ask)
    } catch (error) {
      logger.debug({ capsuleId, error: errorText(error) }, 'egress.host_silent')
      return undefined
    }
  }

  /**
   * Replaces the whole policy. What becomes forbidden ends its open connections, what stays allowed is never cut. The answer says
   * whether the host has it; asking for what there is already changes nothing.
   * @throws AppError `capsule_not_found`, `invalid_state`, `invalid_request` naming the entry, `engine_failure`, `not_supported` for rules
   * without a key to keep them with
   */
  async set(teamId: string, id: string, wish: EgressWish, { waitMs, actor }: SetOptions): Promise<EgressView> {
    const { db, keyring } = this.#deps
    const checked = checkedEgress(wish)
    const row = await inTransaction(db, async (tx) => {
      await needCapsule(tx, teamId, id)
      const current = await lockCapsule(tx, id)
      if (current === undefined || current.state === 'stopping' || current.state === 'stopped') {
        throw illegal(current ?? (await needCapsule(tx, teamId, id)), 'a change of its egress')
      }
      const split = splitWish(checked, () => openRules(keyring, current))
      return this.#isSame(current, split) ? current : await this.#write(tx, current, split, actor)
    })
    if (isInForce(row) || waitMs === 0) return toEgress(row)
    try {
      return toEgress(await carryEgress(this.#deps, row, waitMs))
    } catch (thrown) {
      if (!isForLater(thrown)) throw thrown
      // Its answer may be lost, or another have carried it meanwhile.
      return toEgress(await needCapsule(db, teamId, id))
    }
  }

  async #round(): Promise<void> {
    if (!this.#isResealed) await this.#reseal()
    await this.#deps.secrets.noteChanges()
    await this.#carryPending()
  }

  /** Once: keys change with a start. */
  async #reseal(): Promise<void> {
    for (const capsuleId of await resealAllRules(this.#deps)) {
      this.#deps.logger.warn({ capsuleId }, 'egress.rules_key_lost')
    }
    for (const secretId of await this.#deps.secrets.resealAll()) {
      this.#deps.logger.warn({ secretId }, 'secret.key_lost')
    }
    this.#isResealed = true
  }

  /** Has carried to hosts what they do not have yet. One that is still told of the last ones has its turn in a later round. */
  async #carryPending(): Promise<void> {
    const byHost = new Map<string | null, CapsuleRow[]>()
    for (const row of await findEgressPending(this.#deps.db))
      byHost.set(row.host_id, [...(byHost.get(row.host_id) ?? []), row])
    for (const [hostId, rows] of byHost) {
      if (this.#carrying.has(hostId)) continue
      const carried = this.#carryAll(rows).finally(() => this.#carrying.delete(hostId))
      this.#carrying.set(hostId, carried)
    }
  }

  /** To one host. A failure of one is no other's, unless the host is away. Never throws. */
  async #carryAll(all: readonly CapsuleRow[]): Promise<void> {
    const { signal } = this.#rounds
    const rows = all.values()
    let isAway = false
    // All of them take from the same rows.
    const carry = async (): Promise<void> => {
      for (const row of rows) {
        if (signal.aborted || isAway) return
        isAway ||= AppError.is(await this.#carryOne(row), 'host_unavailable', 'timeout')
      }
    }
    await Promise.all(Array.from({ length: CARRIED_AT_ONCE }, carry))
  }

  /** @returns why it was not carried */
  async #carryOne(row: CapsuleRow): Promise<unknown> {
    try {
      await carryEgress(this.#deps, row, CARRY_TIMEOUT_MS)
      return undefined
    } catch (error) {
      const level = isForLater(error) ? 'debug' : 'warn'
      this.#deps.logger[level]({ capsuleId: row.id, error: errorText(error) }, 'egress.not_carried')
      return error
    }
  }

  #isSame(row: CapsuleRow, { policy, rules }: Split): boolean {
    if (!isSame(policyOf(row), policy)) return false
    if (rules.length === 0) return true // their hosts would be in the policy
    try {
      return JSON.stringify(openRules(this.#deps.keyring, row)) === JSON.stringify(rules)
    } catch (error) {
      if (!AppError.is(error, 'not_supported')) throw error
      return false // by a key that is lost: they are given anew
    }
  }

  async #write(tx: Db, row: CapsuleRow, { policy, rules }: Split, actor: Actor): Promise<CapsuleRow> {
    const { id, team_id: teamId } = row
    const written = await patchCapsule(tx, id, {
      egress: JSON.stringify(policy),
      egress_rules: sealRules(this.#deps.keyring, id, rules),
      secret_names: await checkReferences(tx, teamId, rules, row.secret_names),
      egress_revision: Math.max(row.egress_revision, row.egress_in_force) + 1,
      updated_at: new Date(),
    })
    const set = (policy.rules ?? []).map(({ host, headers }) => `${host}(${headers.join(',')})`)
    const lists = { allow: told(policy.allow), deny: told(policy.deny), rules: told(set) }
    const details = { internet: String(policy.internet), ...lists, ...(policy.learn && { learn: 'true' }) }
    await writeAudit(tx, { teamId, actor, action: 'capsule.egress', resource: { type: 'capsule', id }, details })
    return written ?? row // locked, so it is there
  }
}

/** A reason that this version does not know is none that it could explain. */
function toRefusal({ name, address, rule, port, count, lastAtMs, ...refusal }: Refusal): EgressStatus['refused'] {
  const reason = refusalReasons.find((known) => known === refusal.reason)
  if (reason === undefined) return []
  const what = { ...(name && { name }), ...(address && { address }), ...(rule && { rule }) }
  return [{ ...what, port, reason, count: Number(count), last_at: new Date(Number(lastAtMs)).toISOString() }]
}

/** A policy, and what its rules set. */
interface Split {
  readonly policy: EgressPolicy
  readonly rules: readonly SecretRule[]
}

/** As the API shows it. */
function toEgress(row: CapsuleRow): EgressView {
  return { policy: policyOf(row), in_force: isInForce(row) }
}

function isSame(a: EgressPolicy, b: EgressPolicy): boolean {
  const text = ({ internet, allow, deny, learn = false, rules = [] }: EgressPolicy): string =>
    JSON.stringify([internet, allow, deny, learn, rules.map(({ host, headers }) => [host, headers])])
  return text(a) === text(b)
}

/** The host is away, busy with the capsule, or does not have it yet. */
function isForLater(thrown: unknown): boolean {
  return AppError.is(thrown, 'host_unavailable', 'timeout', 'capsule_not_found')
}

function told(entries: readonly string[]): string | undefined {
  if (entries.length === 0) return undefined
  const text = entries.join(' ')
  return text.length <= TOLD_CHARACTERS ? text : `${text.slice(0, TOLD_CHARACTERS)}… (${entries.length} in all)`
}
