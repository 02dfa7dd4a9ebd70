import { AppError, settleAll } from '@wrenn/base'
import { type Context, currentDir, dirs, manifestOf, syncGuest } from '../context.js'
import type { Guest } from '../guest/index.js'
import type { StateManifest } from '../state/index.js'
import type { StepTimer } from '../step-timer.js'
import type { Entry } from '../table.js'

/** A clone first writes back what is dirty in its source: rounds of that while the guest still runs keep its stop short. */
const FLUSH_ROUNDS = 4
const SHORT_FLUSH_MS = 25
const GUEST_SYNC_TIMEOUT_MS = 5_000

/** A saved state, and what its making cost the capsule. */
export interface Capture {
  readonly manifest: StateManifest
  /** How long the guest stood still; 0 for a capsule that is paused, and for a checkpoint. */
  readonly pauseWindowMs: number
}

/** How a state is saved beside a capsule that goes on. */
export interface CaptureOptions {
  /** Have the guest write its files to the disk first, so that the disk alone can be compared or read. */
  readonly syncFiles: boolean
  /** Names the steps, such as `checkpoint:saved`. */
  readonly name: string
  readonly timer: StepTimer
}

/**
 * Saves a capsule, running or paused, as a state of its own under `dir`; the capsule stays as it was.
 * @throws AppError `disk_full`, `engine_failure`, `snapshot_damaged`; nothing then stays of it
 */
export async function capture(entry: Entry, context: Context, dir: string, options: CaptureOptions): Promise<Capture> {
  const { guest } = entry
  if (guest !== undefined) return await captureRunning(entry, guest, context, dir, options)
  const manifest = await context.states.copy(currentDir(entry), dir, {
    parentId: entry.record.checkpointId ?? '',
    savedAtMs: Date.now(),
  })
  options.timer.mark('copy')
  return { manifest, pauseWindowMs: 0 }
}

/**
 * A checkpoint's state once more, under `dir`; its capsule, which has to be held, does not notice.
 * @throws AppError `checkpoint_not_found`, `snapshot_damaged`, `disk_full`; nothing then stays of it
 */
export async function captureCheckpoint(
  { record }: Entry,
  { states }: Context,
  checkpointId: string,
  dir: string,
  timer: StepTimer,
): Promise<Capture> {
  const from = dirs.checkpoint(record.capsuleId, checkpointId)
  if ((await states.read(from)) === undefined) {
    throw new AppError('checkpoint_not_found', `The capsule has no checkpoint ${checkpointId}.`)
  }
  const manifest = await states.copy(from, dir, { parentId: checkpointId, savedAtMs: Date.now() })
  timer.mark('copy')
  return { manifest, pauseWindowMs: 0 }
}

async function captureRunning(
  entry: Entry,
  guest: Guest,
  context: Context,
  dir: string,
  { syncFiles, name, timer }: CaptureOptions,
): Promise<Capture> {
  const { states, machine, reach } = context
  const synced = syncFiles && (await syncGuest(entry, context, { timeoutMs: GUEST_SYNC_TIMEOUT_MS }))
  if (syncFiles) timer.mark('sync')
  await using draft = await states.draft(dir)
  const [source, target] = [states.files(currentDir(entry)), states.files(draft.dir)]
  const dirty = [source.memoryPath, source.diskPath]
  const memoryPath = await states.wholeMemory(currentDir(entry))
  await flushAhead(dirty, context)
  timer.mark('flush')
  reach(`${name}:flushed`)
  const stoppedAt = performance.now()
  let sha256: string
  using _ = guest.client.pulse.hold()
  await guest.vm.pause()
  try {
    reach(`${name}:stopped`)
    // What the guest has written since the last round goes to the disk while its devices are saved.
    const [saved] = await settleAll([guest.vm.save(target.statePath), flush(dirty, context)])
    sha256 = saved.sha256
    timer.mark('save')
    const owner = { uid: 0, gid: 0, mode: 0o600 }
    await settleAll([
      machine.pool.clone(memoryPath, target.memoryPath, owner),
      machine.pool.clone(source.diskPath, target.diskPath, owner),
    ])
    reach(`${name}:cloned`)
  } finally {
    await guest.vm.resume()
  }
  const pauseWindowMs = performance.now() - stoppedAt
  timer.mark('clone')
  const manifest = await states.commit(draft.dir, manifestOf(entry, guest, context, synced), sha256)
  reach(`${name}:committed`)
  await draft.keep()
  return { manifest, pauseWindowMs }
}

async function flush(paths: readonly string[], { machine }: Context): Promise<void> {
  await Promise.all(paths.map((path) => machine.pool.sync(path)))
}

async function flushAhead(paths: readonly string[], context: Context): Promise<void> {
  for (let round = 0; round < FLUSH_ROUNDS; round++) {
    const started = performance.now()
    await flush(paths, context)
    if (performance.now() - started < SHORT_FLUSH_MS) return
  }
}
