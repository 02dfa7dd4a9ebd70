import { errorText } from '@wrenn/base'
import { type Context, currentDir, planOf, watchExit } from '../context.js'
import { tryToTrustEdge } from '../edge.js'
import { BOOT_TIMEOUT_MS, type Guest, type GuestPlan, identifyBooted, unlessItDies } from '../guest/index.js'
import type { StateManifest } from '../state/index.js'
import { StepTimer } from '../step-timer.js'
import type { Entry } from '../table.js'
import type { CapsuleRecord, FromDisk, VmResources } from '../types.js'
import { removeUnnamedGenerations } from './generations.js'

/** Memory that a guest touches while it boots, and the file system's own records. */
const BOOT_BYTES = 256 * 2 ** 20

/**
 * Starts a capsule from its disk alone, for when its memory cannot be loaded or is not wanted: files are kept, memory and
 * processes are not. The guest boots on a clone of the disk. What it was cloned from stays the capsule until the guest is up
 * and knows who it is; and a saved state stays even then, as a resume's does, until a newer one is durable.
 */
export class ColdStart {
  readonly #context: Context

  constructor(context: Context) {
    this.#context = context
  }

  /** @throws AppError `snapshot_damaged`, `engine_failure`, `guest_died`, `guest_unreachable`, `disk_full`; nothing has changed then */
  async run(entry: Entry, fromDisk: FromDisk): Promise<void> {
    const { table, states, machine, reach, logger } = this.#context
    const timer = new StepTimer(this.#context.tracer)
    await entry.teardown
    const before = entry.record
    const from = currentDir(entry)
    await states.intactDisk(from, before)
    await machine.pool.ensureSpace(BOOT_BYTES)
    const manifest = await states.read(from).catch(() => undefined) // damaged: only its disk counts
    const files = before.files + 1
    const plan = await this.#planOf(entry, files)
    await table.move(entry, 'resume', { engineVersion: await machine.engine.version() })
    let guest: Guest | undefined
    try {
      reach('resume:begun')
      await states.remove(plan.dir) // of a start that did not come to its end
      guest = await bootOnDisk(plan, from, fromDisk, entry, this.#context)
      // It has the environment of a create, and perhaps a disk from before there were rules.
      await tryToTrustEdge(guest, before, logger)
      timer.mark('boot')
      reach('resume:booted')
      const fallback = await this.#fallbackOf(before, from)
      await table.store(entry, { files, fallback, notice: noticeOf(manifest) })
      reach('resume:switched')
    } catch (error) {
      await this.#undo(entry, before, guest, plan.dir, error)
      throw error
    }
    entry.guest = guest
    entry.rollbacks = (entry.rollbacks ?? 0) + 1 // who followed a process follows none of these
    await table.settleMove(entry, 'started', { lifecycleTimings: timer.steps(), exit: undefined })
    watchExit(entry, guest, this.#context)
    await removeUnnamedGenerations(entry.record, this.#context)
    logger.info({ capsuleId: before.capsuleId, was: before.state, ms: timer.totalMs() }, 'capsule.started_from_disk')
  }

  async #planOf(entry: Entry, files: number): Promise<GuestPlan> {
    const onResources = (resources: VmResources) => this.#context.table.store(entry, { resources })
    const hardware = await this.#context.machine.engine.newHardware()
    return { ...planOf(entry, this.#context, { files, hardware, onResources }), egress: entry.record.egress }
  }

  /** The saved state that a power loss leads back to: the one that is given up, unless only an older one is durable. */
  async #fallbackOf({ files, fallback }: CapsuleRecord, from: string): Promise<number | undefined> {
    const { states } = this.#context
    const isDamaged = (): undefined => undefined
    const durable = await states.durable(from).catch(isDamaged)
    if (fallback !== undefined && durable === undefined) return fallback
    return (await states.read(from).catch(isDamaged)) === undefined ? fallback : files
  }

  /** The exact reverse of a start that did not come to its end. */
  async #undo(entry: Entry, before: CapsuleRecord, guest: Guest | undefined, dir: string, cause: unknown) {
    const { table, states, factory, logger } = this.#context
    const { files, fallback, notice, exit } = before
    logger.warn({ capsuleId: before.capsuleId, error: errorText(cause) }, 'capsule.start_from_disk_failed')
    const gone = { files, fallback, notice, exit, resources: undefined }
    await table.settleMove(entry, before.state === 'paused' ? 'failed' : 'exited', gone)
    if (guest !== undefined) {
      guest.client.close()
      await factory.stop(guest.resources, guest.vm)
    }
    await states.remove(dir)
  }
}

/**
 * Boots a guest of a capsule on a clone of the disk of `from` and tells it who it is; ends it again when it does not come up.
 * @throws AppError `engine_failure`, `guest_died`, `guest_unreachable`
 */
export async function bootOnDisk(
  plan: GuestPlan,
  from: string,
  fromDisk: FromDisk,
  { record }: Entry,
  { factory, states }: Context,
): Promise<Guest> {
  const { capsuleId, hostname, secret } = record
  const guest = await factory.boot(plan, states.files(from).diskPath)
  const comeUp = async (): Promise<void> => {
    await guest.client.waitHealthy(BOOT_TIMEOUT_MS)
    await identifyBooted(guest.client, { capsuleId, hostname, secret }, fromDisk)
  }
  try {
    await unlessItDies(guest, comeUp())
    return guest
  } catch (error) {
    guest.client.close()
    await factory.stop(guest.resources, guest.vm)
    throw error
  }
}

/** What the owner of a capsule that was started from a disk should know. */
export function noticeOf(saved: StateManifest | undefined): string {
  const started = 'The capsule was started from its disk: its files are kept, its memory and processes are not.'
  if (saved?.synced === true) return started
  return `${started} What its programs had not written out when it stopped may be missing.`
}
