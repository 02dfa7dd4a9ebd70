import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { link, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import {
  AppError,
  errorText,
  identify,
  isErrno,
  isRunning,
  type Logger,
  type ProcessId,
  signalProcess,
  waitFor,
} from '@wrenn/base'
import { z } from 'zod'
import { syncData } from '../durability/index.js'
import { hostToolEnvironment, runForResult } from '../exec.js'
import { isThere } from '../is-there.js'
import { listMounts } from '../mounts.js'
import { LOADER_FILES, type LoaderOrder } from './order.js'

const START_MS = 30_000
const LOOK_EVERY_MS = 100
/** A guest that was just ended has its memory mapped for a moment yet. */
const BUSY_MS = 30_000
/** One that has nothing to serve any more has a hint to write. */
const NOTE_MS = 5_000
/** One that was killed may be in the middle of a write to a busy disk. */
const END_MS = 30_000
/** Two wait for requests, the rest work. */
const THREADS = 16

/** Why this machine cannot serve a memory while it comes; `undefined` when it can. */
export async function obstacleToLoading(): Promise<string | undefined> {
  try {
    await using _ = await open('/dev/fuse', 'r+')
    return undefined
  } catch (error) {
    return `/dev/fuse cannot be opened (${errorText(error)})`
  }
}

const markSchema = z.object({ pid: z.number(), startTicks: z.string() })

interface LoadersOptions {
  /** The loader's program; empty where none is started. */
  readonly program: string
  /** Where states are; what is mounted below is a loader's. */
  readonly poolPath: string
  readonly logger: Logger
}

/**
 * Loaders of memory: processes of their own, which serve a state's memory file over its own name while they fill it. They outlive us, as the guests that
 * run on it do. What is beside the file says what it is worth: with the mark there, only a loader that runs makes a memory of it.
 */
export class Loaders {
  readonly #options: LoadersOptions

  constructor(options: LoadersOptions) {
    this.#options = options
  }

  /** Why this machine cannot have any; `undefined` when it can. */
  async obstacle(): Promise<string | undefined> {
    return await obstacleToLoading()
  }

  /** Puts an empty memory into a directory, which counts for nothing until {@link start}. */
  async prepare(dir: string, sizeBytes: number): Promise<void> {
    await using mark = await open(join(dir, LOADER_FILES.mark), 'wx', 0o600)
    await mark.writeFile('{}')
    await mark.sync()
    await using file = await open(join(dir, LOADER_FILES.memory), 'wx', 0o600)
    await file.truncate(sizeBytes)
    await file.sync()
    await link(join(dir, LOADER_FILES.memory), join(dir, LOADER_FILES.real))
  }

  /**
   * Starts a loader for a prepared directory. Its memory can be read and mapped when this returns.
   * @throws AppError `engine_failure` with its last words; then nothing of it runs
   */
  async start(dir: string, order: LoaderOrder): Promise<void> {
    const { program } = this.#options
    const child = spawn(process.execPath, ['--max-old-space-size=256', program, dir], {
      env: { ...hostToolEnvironment, UV_THREADPOOL_SIZE: String(THREADS) },
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
      cwd: '/',
    })
    child.unref()
    let said = ''
    child.stderr.on('data', (bytes) => {
      said = `${said}${bytes}`.slice(-1000)
    })
    child.stdin.on('error', () => {}) // it has ended, which is seen below
    child.stdin.end(JSON.stringify(order))
    const ended = once(child, 'close').then(([code]) => {
      throw new Error(`it ended with ${code}: ${said.trim()}`)
    })
    ended.catch(() => {}) // later it is seen otherwise
    const timeout = new AbortController()
    const tooLate = delay(START_MS, undefined, { signal: timeout.signal, ref: false }).then(() => {
      throw new Error(`it is not ready after ${START_MS} ms`)
    })
    tooLate.catch(() => {})
    try {
      await Promise.race([once(createInterface(child.stdout), 'line'), ended, tooLate])
      const id = child.pid === undefined ? undefined : await identify(child.pid)
      if (id === undefined) throw new Error('it ended')
      await writeFile(join(dir, LOADER_FILES.mark), JSON.stringify(id))
    } catch (error) {
      child.kill('SIGKILL')
      await ended.catch(() => {})
      await this.drop(dir)
      throw new AppError('engine_failure', `The memory loader cannot be started: ${errorText(error)}`, { cause: error })
    } finally {
      timeout.abort()
      for (const stream of [child.stdout, child.stderr]) stream.destroy()
    }
  }

  async status(dir: string): Promise<'plain' | 'loading' | 'whole' | 'broken'> {
    const id = await readMark(dir)
    if (id === undefined) return 'plain'
    if (id === 'unknown' || !(await isRunning(id))) return 'broken'
    return (await isThere(join(dir, LOADER_FILES.whole))) ? 'whole' : 'loading'
  }

  /** Why a directory's loader has ended, a sentence. */
  async failure(dir: string): Promise<string> {
    const known = await readFile(join(dir, LOADER_FILES.failed), 'utf8').catch(() => '')
    return known === '' ? 'The process that loaded its memory has ended.' : known
  }

  /** Where a memory is really, also while a loader covers it: what can be cloned. */
  async source(dir: string): Promise<string> {
    const real = join(dir, LOADER_FILES.real)
    return (await isThere(real)) ? real : join(dir, LOADER_FILES.memory)
  }

  /** Waits until all of a memory is on the disk. @throws AppError `snapshot_damaged` when its loader ends before; the signal's reason */
  async whole(dir: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted()
      const status = await this.status(dir)
      if (status === 'plain' || status === 'whole') return
      if (status === 'broken') throw new AppError('snapshot_damaged', await this.failure(dir))
      await delay(LOOK_EVERY_MS, undefined, { signal, ref: false })
    }
  }

  /**
   * Makes a plain file of a memory that no guest runs on: all of it is on the disk then, and its loader has ended.
   * @throws as {@link whole}
   */
  async finish(dir: string, signal: AbortSignal): Promise<void> {
    if ((await this.status(dir)) === 'plain') return await this.#uncover(dir)
    await this.whole(dir, signal)
    await syncData(join(dir, LOADER_FILES.memory), { signal })
    signal.throwIfAborted()
    // From here on the file is the memory, whatever becomes of the loader.
    await rename(join(dir, LOADER_FILES.mark), join(dir, LOADER_FILES.ending))
    await using folder = await open(dir, 'r')
    await folder.sync()
    await this.#uncover(dir)
  }

  /** Ends what loads below a directory, which is about to go: whatever runs on it ends too. */
  async drop(path: string): Promise<void> {
    for (const { dir, target } of await this.#mounted(path)) {
      const ids = await Promise.all([LOADER_FILES.mark, LOADER_FILES.ending].map((name) => readMark(dir, name)))
      const loaders = ids.filter((id) => id !== undefined && id !== 'unknown')
      for (const id of loaders) await signalProcess(id, 'SIGKILL')
      const { exitCode, stderr } = await runForResult('umount', ['--lazy', target])
      // A flush that was given up may have unmounted it meanwhile.
      if (exitCode !== 0 && !/not mounted|no mount point|not found/.test(stderr)) {
        throw new AppError('engine_failure', `${target} cannot be unmounted: ${stderr.trim()}`)
      }
      for (const id of loaders) await untilEnded(id, dir)
    }
  }

  /** After a start of the host agent: ends loaders of directories that nobody has, and of memories that are plain since; what a dead one serves cannot even be looked at. */
  async sweep(isKept: (dir: string) => boolean): Promise<void> {
    for (const { dir } of await this.#mounted(this.#options.poolPath)) {
      try {
        const status = await this.status(dir)
        if (!isKept(dir) || status === 'broken') await this.drop(dir)
        else if (status === 'plain') await this.#uncover(dir)
      } catch (error) {
        // Somebody reads it. The file is the same either way, and no other capsule waits for that.
        this.#options.logger.warn({ dir, error: errorText(error) }, 'memory.not_uncovered')
      }
    }
  }

  /** Of a memory that is plain: the mount goes, and with it its loader. */
  async #uncover(dir: string): Promise<void> {
    for (const { target } of await this.#mounted(dir)) {
      const isFree = async (): Promise<true | undefined> => {
        const { exitCode, stderr } = await runForResult('umount', [target])
        if (exitCode === 0) return true
        if (/busy/.test(stderr)) return undefined
        throw new AppError('engine_failure', `${target} cannot be unmounted: ${stderr.trim()}`)
      }
      await waitFor(isFree, { timeoutMs: BUSY_MS, what: `the last guest to let go of ${target}` })
      this.#options.logger.info({ dir }, 'memory.loaded')
    }
    // It notes what was read, and whoever removes the directory, or stores what is in it, comes after that.
    const loader = await readMark(dir, LOADER_FILES.ending)
    if (loader !== undefined && loader !== 'unknown') await this.#end(loader, dir)
    for (const name of [LOADER_FILES.real, LOADER_FILES.whole, LOADER_FILES.ending]) {
      await rm(join(dir, name), { force: true })
    }
  }

  async #end(loader: ProcessId, dir: string): Promise<void> {
    if (await hasEnded(loader, NOTE_MS)) return
    this.#options.logger.warn({ dir }, 'memory.loader_stays')
    await signalProcess(loader, 'SIGKILL')
    await untilEnded(loader, dir)
  }

  async #mounted(path: string): Promise<readonly { readonly dir: string; readonly target: string }[]> {
    const mounts = await listMounts()
    return mounts
      .filter(({ type, target }) => type === 'fuse' && target.startsWith(`${this.#options.poolPath}/`))
      .filter(({ target }) => target.startsWith(`${path}/`))
      .map(({ target }) => ({ dir: dirname(target), target }))
  }
}

/** Which loader a directory has; `unknown` before it was ready. */
async function readMark(dir: string, name: string = LOADER_FILES.mark): Promise<ProcessId | 'unknown' | undefined> {
  try {
    const found = markSchema.safeParse(JSON.parse(await readFile(join(dir, name), 'utf8')))
    return found.success ? found.data : 'unknown'
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    if (error instanceof SyntaxError) return 'unknown' // half of a write
    throw error
  }
}

async function hasEnded(loader: ProcessId, timeoutMs: number): Promise<boolean> {
  const isOver = async (): Promise<true | undefined> => ((await isRunning(loader)) ? undefined : true)
  return await waitFor(isOver, { timeoutMs, what: 'a loader to end' }).catch(() => false)
}

/** After this a loader writes nothing into its directory any more. @throws AppError `engine_failure` when it does not end */
async function untilEnded(loader: ProcessId, dir: string): Promise<void> {
  if (await hasEnded(loader, END_MS)) return
  throw new AppError('engine_failure', `The loader of ${dir} (process ${loader.pid}) does not end.`)
}
