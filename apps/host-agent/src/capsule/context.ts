import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, errorText, type Logger, type ReachStep, type Tracer } from '@wrenn/base'
import { nextState } from '@wrenn/protocol'
import type { Hardware, VmExit } from '@wrenn/vmm'
import { joinLearned, type Learned, lostLearned } from '../host/names/index.js'
import { tryToTrustEdge } from './edge.js'
import type { Guest, GuestFactory, GuestPlan } from './guest/guest.js'
import { revive } from './guest/session.js'
import type { ShortCalls } from './guest/short-calls.js'
import type { Machine } from './machine.js'
import type { HotPool } from './pool/hot-pool.js'
import type { ShapeStore } from './pool/shapes.js'
import type { Flusher } from './state/flusher.js'
import type { Sizes } from './state/sizes.js'
import { hardwareOf, type StateManifest, type StateStore, type VerifyFiles } from './state/states.js'
import type { CapsuleTable, Entry } from './table.js'
import type { CapsuleRecord, VmResources } from './types.js'

/** What every lifecycle command works with. */
export interface Context {
  readonly machine: Machine
  readonly factory: GuestFactory
  readonly shapes: ShapeStore
  readonly hotPool: HotPool
  readonly states: StateStore
  readonly flusher: Flusher
  readonly verifyFiles: VerifyFiles
  readonly sizes: Sizes
  readonly calls: ShortCalls
  readonly table: CapsuleTable
  readonly logger: Logger
  readonly tracer: Tracer
  readonly reach: ReachStep
  /** Boot of this host. */
  readonly bootId: string
}

/** How long a guest that is about to be stopped may take to answer what it was asked. */
export const DRAIN_MS = 1_000

const LOAD_LOOK_MS = 1_000

/** Directories of a capsule below the pool. */
export const dirs = {
  capsule: (capsuleId: string) => `capsules/${capsuleId}`,
  generation: (capsuleId: string, files: number) => `capsules/${capsuleId}/${files}`,
  checkpoints: (capsuleId: string) => `capsules/${capsuleId}/checkpoints`,
  checkpoint: (capsuleId: string, checkpointId: string) => `capsules/${capsuleId}/checkpoints/${checkpointId}`,
  /** Of one command of this process, which removes it; after a crash the sweep does. */
  scratch: (capsuleId: string, kind: 'seed' | 'diff') =>
    `capsules/${capsuleId}-${kind}-${randomBytes(4).toString('hex')}`,
  snapshots: () => 'snapshots',
  snapshot: (snapshotId: string) => `snapshots/${snapshotId}`,
}

/** The directory that a capsule runs on or resumes from. */
export function currentDir({ record }: Entry): string {
  return dirs.generation(record.capsuleId, record.files)
}

/** What a state saved of this capsule's running guest says about itself. */
export function manifestOf(
  { record }: Entry,
  guest: Guest,
  context: Context,
  synced: boolean,
): Omit<StateManifest, 'format' | 'stateSha256'> {
  const { capsuleId, teamId, template, vcpus, memoryMib, diskSizeMib } = record
  const { engine, engineVersion, kernelVersion, agentVersion, image, secret } = record
  return {
    ...{ capsuleId, teamId, template, vcpus, memoryMib, diskSizeMib },
    ...{ engine, engineVersion, kernelVersion, agentVersion, image, secret },
    hardware: hardwareOf({ engine, engineVersion, hardware: guest.vm.record.hardware }),
    parentId: record.checkpointId ?? '',
    synced,
    savedAtMs: Date.now(),
    bootId: context.bootId,
  }
}

/** What differs between the guests of a capsule. */
export interface NextGuest {
  /** Number of the generation whose files it runs on. */
  readonly files: number
  /** Of a new guest the engine's newest, else what its state was saved on. */
  readonly hardware: Hardware
  readonly onResources: (resources: VmResources) => Promise<void>
  /** @default the capsule's id */
  readonly vmId?: string
}

/** How to start another guest of a capsule. */
export function planOf({ record }: Entry, context: Context, next: NextGuest): GuestPlan {
  const { files, hardware, onResources, vmId = record.capsuleId } = next
  return {
    vmId,
    hardware,
    dir: dirs.generation(record.capsuleId, files),
    spec: record,
    image: context.factory.imageOf(record.image),
    secret: record.secret,
    onResources,
  }
}

/** Has the guest write its files out. False when it did not come to an end in time; its memory holds the rest. */
export async function syncGuest(
  entry: Entry,
  context: Context,
  options: { readonly dropCaches?: boolean; readonly timeoutMs: number },
): Promise<boolean> {
  const { guest, record } = entry
  if (guest === undefined) return false
  try {
    const { synced, problems } = await guest.client.quiesce({ sync: true, ...options })
    if (!synced) context.logger.warn({ capsuleId: record.capsuleId, problems }, 'capsule.not_synced')
    return synced
  } catch (error) {
    context.logger.warn({ capsuleId: record.capsuleId, error: errorText(error) }, 'capsule.not_synced')
    return false
  }
}

/**
 * Refuses what would come to nothing: a copy is let go only when it has taken an identity of its own, or two capsules would share
 * names and random state. @throws AppError `guest_unreachable` when a running guest gives no sign
 */
export async function requireReachable(entry: Entry, what: string): Promise<void> {
  const { guest } = entry
  try {
    await guest?.client.requireReachable()
  } catch (error) {
    if (!AppError.is(error, 'guest_unreachable')) throw error
    // It was put to sleep, rolled back or destroyed meanwhile: whoever holds the capsule next sees what it is now.
    if (entry.guest !== guest) return
    throw new AppError(error.code, `${error.message} ${what} could not be told who it is.`, { cause: error })
  }
}

/**
 * The answer to whoever asks again for a capsule to be made: it was, and may have been paused since.
 * @throws AppError `guest_died` when it has ended meanwhile, `conflict` when it is something else that exists
 */
export function requireMade(record: CapsuleRecord): CapsuleRecord {
  const { state, exit } = record
  if (state === 'running' || state === 'paused') return record
  if (state === 'error' && exit !== undefined) {
    throw new AppError('guest_died', `The capsule was made and has ended since: ${exit.message}`)
  }
  throw new AppError('conflict', `The capsule exists already and is ${state}.`)
}

/** Drops the line to a capsule's guest; calls to it end. */
export function closeLine(entry: Entry): Guest | undefined {
  const { guest } = entry
  entry.guest = undefined
  entry.revival = undefined
  guest?.client.close()
  return guest
}

/**
 * Ends a capsule's guest and gives back what it held of the machine; its files stay.
 * @param options.first once nobody calls the guest any more
 */
export async function release(
  entry: Entry,
  context: Context,
  options: { readonly first?: () => Promise<void> } = {},
): Promise<void> {
  await entry.teardown
  const guest = closeLine(entry)
  await options.first?.()
  const resources = guest?.resources ?? entry.record.resources
  if (resources !== undefined) await context.factory.stop(resources, guest?.vm)
  if (entry.record.other !== undefined) await context.factory.stop(entry.record.other, undefined)
}

/**
 * Ends a guest whose state was saved, behind the caller's back: its process can do nothing any more, but unmapping a large
 * memory takes time. A resume waits for it. Without a guest there is only what is to be forgotten.
 */
export function tearDown(entry: Entry, context: Context, guest: Guest | undefined, forget: () => Promise<void>): void {
  const { capsuleId } = entry.record
  const earlier = entry.teardown
  const run = async (): Promise<void> => {
    await earlier // of a rollback just before
    if (guest !== undefined) {
      entry.learned = await learnedSoFar(entry, guest, context.machine)
      await context.factory.stop(guest.resources, guest.vm)
    }
    await forget()
  }
  const teardown = run()
    .catch((error: unknown) => context.logger.error({ capsuleId, error: errorText(error) }, 'capsule.teardown_failed'))
    .finally(() => {
      if (entry.teardown === teardown) entry.teardown = undefined
    })
  entry.teardown = teardown
}

/** What a capsule was seen to use, by its guest and the earlier ones; `undefined` while it does not learn. */
export async function learnedSoFar(
  { record, learned }: Entry,
  guest: Guest | undefined,
  { slots }: Machine,
): Promise<Learned | undefined> {
  if (record.egress.learn !== true) return undefined
  // Whatever keeps the kernel or the filter from telling: what is not known is said to be missing.
  const now = guest === undefined ? undefined : await slots.learned(guest.resources.slotIndex).catch(() => lostLearned)
  return joinLearned(...[learned, now].filter((each) => each !== undefined))
}

/**
 * Tells a guest that time has passed, while its capsule counts as running already; calls to it wait. One that cannot be reached,
 * such as one whose network was down when it was saved, is told as soon as it can.
 */
export function startRevival(entry: Entry, context: Context): void {
  const { guest, record } = entry
  if (guest === undefined) return
  const { capsuleId } = record
  const isCurrent = (): boolean => entry.guest === guest
  const onLate = (error: unknown): void =>
    context.logger.warn({ capsuleId, error: errorText(error) }, 'capsule.not_revived_yet')
  const trust = async (): Promise<void> => await tryToTrustEdge(guest, entry.record, context.logger)
  const revival = reviveGuest(guest, isCurrent, onLate, trust)
    .then(async ({ problems, ms }) => {
      if (!isCurrent()) return
      entry.revival = undefined
      context.logger.debug({ capsuleId, ms, problems }, 'capsule.revived')
      await context.table.store(entry, { reviving: undefined })
    })
    .catch((error: unknown) => {
      if (isCurrent()) context.logger.error({ capsuleId, error: errorText(error) }, 'capsule.not_revived')
    })
  entry.revival = revival
}

async function reviveGuest(
  guest: Guest,
  isCurrent: () => boolean,
  onLate: (error: unknown) => void,
  trust: () => Promise<void>,
): Promise<{ readonly problems: readonly string[]; readonly ms: number }> {
  const started = performance.now()
  for (;;) {
    try {
      const { problems } = await revive(guest.client)
      await trust()
      return { problems, ms: Math.round(performance.now() - started) }
    } catch (error) {
      if (!AppError.is(error, 'guest_unreachable') || !isCurrent()) throw error
      onLate(error)
      await reachable(guest, isCurrent)
    }
  }
}

/** Waits for a sign of the guest. One that has none for hours is not asked more often than a call that waits for it would. */
async function reachable({ client }: Guest, isCurrent: () => boolean): Promise<void> {
  while (isCurrent()) {
    try {
      return await client.requireReachable()
    } catch {
      await delay(client.pulse.patience.probeEveryMs, undefined, { ref: false })
    }
  }
}

/** Notices when a capsule's guest ends by itself. */
export function watchExit(entry: Entry, guest: Guest, context: Context): void {
  const { capsuleId } = entry.record
  const { table, logger } = context
  const broken = endWithLoad(entry, guest, context)
  const record = async (exit: VmExit): Promise<void> => {
    if (entry.guest !== guest || table.find(capsuleId) !== entry) return
    const message = await broken
    await recordExit(entry, message === undefined ? exit : { ...exit, cause: 'engine_failure', message }, context)
  }
  void guest.vm.exited
    .then((exit) => table.exclusive(capsuleId, () => record(exit)))
    .catch((error: unknown) => logger.error({ err: error, capsuleId }, 'capsule.exit_not_recorded'))
}

/**
 * Ends a guest whose memory will never be whole, before it asks for what is not there, or is paused with what can be kept nowhere. Never rejects.
 * @returns why, a sentence, when its memory broke; known once the guest has ended
 */
async function endWithLoad(
  entry: Entry,
  guest: Guest,
  { machine, states, logger }: Context,
): Promise<string | undefined> {
  const { capsuleId } = entry.record
  const { memory } = machine
  const dir = states.path(guest.resources.dir)
  let isOver = false
  void guest.vm.exited.then(() => {
    isOver = true
  })
  try {
    for (;;) {
      const status = await memory.status(dir)
      if (status === 'broken') break
      if (status === 'plain' || isOver || entry.guest !== guest) return undefined
      await Promise.race([delay(LOAD_LOOK_MS, undefined, { ref: false }), guest.vm.exited])
    }
    const message = await memory.failure(dir)
    logger.error({ capsuleId, reason: message }, 'capsule.load_broken')
    if (entry.guest === guest) await guest.vm.kill()
    return message
  } catch (error) {
    logger.error({ err: error, capsuleId }, 'capsule.load_not_watched')
    return undefined
  }
}

/** The guest is gone by itself: keep its files and say why; give the rest back to the machine. */
export async function recordExit(entry: Entry, exit: VmExit, context: Context): Promise<void> {
  const { capsuleId, state } = entry.record
  context.logger.warn({ capsuleId, cause: exit.cause, reason: exit.message }, 'capsule.exited')
  await release(entry, context)
  const gone = { exit, resources: undefined, other: undefined, undo: undefined, reviving: undefined }
  if (nextState(state, 'exited') === undefined) await context.table.settle(entry, gone)
  else await context.table.settleMove(entry, 'exited', gone)
}
