import { type Learned, nothingLearned } from '../../host/names/index.js'
import { type Context, learnedSoFar } from '../context.js'
import { tryToTrustEdge, withAuthority } from '../edge.js'
import type { Entry } from '../table.js'
import type { CapsuleRecord, EgressPolicy, Refusal } from '../types.js'

/** What capsules may reach, changed while they live. It belongs to the capsule: no pause, rollback or restart changes it. */
export class Egress {
  readonly #context: Context

  constructor(context: Context) {
    this.#context = context
  }

  /**
   * Replaces the policy, for a guest that runs at once. One of an older revision than the capsule has is out of date and changes
   * nothing; the same revision is put in force again.
   * @throws AppError `capsule_not_found`, `invalid_request`, `engine_failure`, `disk_full`; the earlier policy then holds
   */
  async set(capsuleId: string, egress: EgressPolicy, revision: number): Promise<CapsuleRecord> {
    const { table, logger } = this.#context
    const { guest, record } = await table.exclusive(capsuleId, async () => {
      const entry = table.entry(capsuleId)
      const { egressRevision: current = 0 } = entry.record
      if (revision >= current) await this.#replace(entry, egress, revision)
      return { guest: entry.guest, record: entry.record }
    })
    // In force it is, which no guest may put off; nor may it hold up what else is done with the capsule. One that wakes is told when it does.
    if (guest !== undefined) await tryToTrustEdge(guest, record, logger)
    return record
  }

  /** What it was refused by name since it came to run here, the newest first. @throws AppError `capsule_not_found` */
  async refusals(capsuleId: string): Promise<readonly Refusal[]> {
    const { table, machine } = this.#context
    const { guest } = table.entry(capsuleId)
    return guest === undefined ? [] : await machine.slots.refused(guest.resources.slotIndex)
  }

  /** What it has used since its policy learns. @throws AppError `capsule_not_found` */
  async learned(capsuleId: string): Promise<Learned> {
    const { table, machine } = this.#context
    const entry = table.entry(capsuleId)
    // What is being given back tells what it knows before.
    if (entry.guest === undefined) await entry.teardown
    return (await learnedSoFar(entry, entry.guest, machine)) ?? nothingLearned
  }

  /** The journal first: a host agent that dies in between loads what the journal says when it starts. */
  async #replace(entry: Entry, wish: EgressPolicy, egressRevision: number): Promise<void> {
    const { table, machine, logger } = this.#context
    const { guest, record: before } = entry
    machine.slots.checkPolicy(wish)
    const egress = await withAuthority(wish, before.egress.authority)
    await table.store(entry, { egress, egressRevision })
    try {
      if (guest !== undefined) await machine.slots.applyPolicy(guest.resources.slotIndex, egress)
    } catch (error) {
      await table.settle(entry, { egress: before.egress, egressRevision: before.egressRevision })
      throw error
    }
    if (egress.learn !== true) entry.learned = undefined
    logger.info({ capsuleId: before.capsuleId, egressRevision }, 'capsule.egress_changed')
  }
}
