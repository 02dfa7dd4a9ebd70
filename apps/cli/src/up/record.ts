import { mkdir, readFile, rm } from 'node:fs/promises'
import {
  AppError,
  DirectoryLock,
  endHolders,
  identify,
  isDying,
  isErrno,
  isRunning,
  type ProcessId,
  processIdSchema,
  signalProcess,
  UndoStack,
  waitFor,
  writeFileAtomic,
} from '@wrenn/base'
import { endLeftServer } from '@wrenn/postgres'
import { z } from 'zod'
import type { Layout } from './layout.js'

const ORPHAN_GRACE_MS = 20_000

const recordSchema = z.object({
  /** Ticks since boot tell processes of one boot apart. */
  bootId: z.string().optional(),
  supervisor: processIdSchema,
  apiUrl: z.string(),
  /** What of a platform runs there; all of it where it is not said. */
  role: z.string().optional(),
  children: z.array(processIdSchema.extend({ name: z.string() })),
})
/** What a running `wrenn up` writes of itself, so that other commands find it and the next one finds what it left. */
export type UpRecord = z.infer<typeof recordSchema>
/** A child by pid and start time, so that a later process of the same pid is not ended in its place. */
export type ChildRecord = UpRecord['children'][number]

/** What `wrenn up` last wrote since this machine was booted; what cannot be read tells of nobody. */
export async function readRecord(layout: Layout): Promise<UpRecord | undefined> {
  const text = await readFile(layout.recordFile, 'utf8').catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  })
  const record = recordSchema.safeParse(parseJson(text ?? '')).data
  return record?.bootId === undefined || record.bootId === (await readBootId()) ? record : undefined
}

/** The record of the directory's `wrenn up` when that is alive, and not being killed at the moment. */
export async function findRunning(layout: Layout): Promise<UpRecord | undefined> {
  const record = await readRecord(layout)
  if (!record || !(await isRunning(record.supervisor))) return undefined
  return (await isDying(record.supervisor)) ? undefined : record
}

/** The error for a second platform in one directory; says how to reach or to stop the first. */
export function alreadyRunning(layout: Layout, record: UpRecord): AppError {
  return running(layout, record.supervisor.pid, `, ${record.apiUrl}`, { apiUrl: record.apiUrl })
}

function running(layout: Layout, pid: number, words: string, details: Readonly<Record<string, unknown>>): AppError {
  return new AppError(
    'conflict',
    `Wrenn is running in ${layout.dir} already (pid ${pid}${words}). ` +
      `Stop it with \`wrenn down --dir ${layout.dir}\`, or give another --dir.`,
    { details: { pid, ...details } },
  )
}

/** The directory for ourselves, and what a run that was killed had left there ended. */
export interface ClaimedDirectory extends AsyncDisposable {
  /** Names of what was ended. */
  readonly stopped: readonly string[]
}

/** @throws AppError `conflict` when a `wrenn up`, `down` or `clean` is at work there. */
export async function claimDirectory(layout: Layout): Promise<ClaimedDirectory> {
  await using undo = new UndoStack()
  const lock = await lockOf(layout)
  await undo.defer(() => lock[Symbol.asyncDispose]())
  const stopped = await endLeft(layout)
  const held = undo.move()
  return { stopped, [Symbol.asyncDispose]: () => held[Symbol.asyncDispose]() }
}

async function lockOf(layout: Layout): Promise<DirectoryLock> {
  try {
    return await DirectoryLock.take('up', layout.dir)
  } catch (error) {
    if (!AppError.is(error, 'conflict')) throw error
    const { pid } = error.details ?? {}
    const record = await readRecord(layout)
    if (typeof pid !== 'number') throw error
    throw record?.supervisor.pid === pid ? alreadyRunning(layout, record) : running(layout, pid, '', {})
  }
}

/**
 * Politely and then not. Whoever has a lifeline was left; the record adds names, and those whose files are closed already while
 * they are being taken down.
 */
async function endLeft(layout: Layout): Promise<string[]> {
  const children = (await readRecord(layout))?.children ?? []
  const names = new Map(children.map(({ pid, name }) => [pid, name]))
  const ended = new Set<string>()
  for (const [service, lifeline] of Object.entries(layout.lifelines)) {
    for (const { pid } of await endHolders(lifeline)) ended.add(names.get(pid) ?? service)
  }
  for (const child of children) if (await endChild(child)) ended.add(child.name)
  if ((await endLeftServer(layout.postgresDir)).length > 0) ended.add('postgres')
  return [...ended]
}

async function endChild(child: ProcessId): Promise<boolean> {
  if (!(await signalProcess(child, 'SIGTERM'))) return false
  const gone = async () => ((await isRunning(child)) ? undefined : true)
  const waiting = { timeoutMs: ORPHAN_GRACE_MS, intervalMs: 20, what: `the process ${child.pid} to end` }
  try {
    await waitFor(gone, waiting)
  } catch (error) {
    if (!AppError.is(error, 'timeout')) throw error
    await signalProcess(child, 'SIGKILL')
    await waitFor(gone, waiting)
  }
  return true
}

/** The claim of one `wrenn up` on its directory, and the record of its children. */
export class DirectoryClaim implements AsyncDisposable {
  readonly #layout: Layout
  readonly #directory: ClaimedDirectory
  #record: UpRecord

  private constructor(layout: Layout, directory: ClaimedDirectory, record: UpRecord) {
    this.#layout = layout
    this.#directory = directory
    this.#record = record
  }

  /** @throws AppError `conflict` when another `wrenn up` runs there. */
  static async take(layout: Layout, apiUrl: string, role = 'platform'): Promise<DirectoryClaim> {
    await using undo = new UndoStack()
    const supervisor = await identify(process.pid)
    if (!supervisor) throw new Error('this process is not in /proc')
    const directory = await claimDirectory(layout)
    await undo.defer(() => directory[Symbol.asyncDispose]())
    await mkdir(layout.runDir, { recursive: true, mode: 0o755 })
    const record = { bootId: await readBootId(), supervisor, apiUrl, role, children: [] }
    const claim = new DirectoryClaim(layout, directory, record)
    await claim.setChildren([])
    undo.move()
    return claim
  }

  /** Names of processes of a killed predecessor that were ended. */
  get stopped(): readonly string[] {
    return this.#directory.stopped
  }

  async setChildren(children: readonly ChildRecord[]): Promise<void> {
    this.#record = { ...this.#record, children: [...children] }
    await writeFileAtomic(this.#layout.recordFile, JSON.stringify(this.#record), 0o644)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#layout.recordFile, { force: true })
    await this.#directory[Symbol.asyncDispose]()
  }
}

async function readBootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
