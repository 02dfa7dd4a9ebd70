import { once } from 'node:events'
import { readFile, rm, stat } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { AppError, isErrno, waitFor, writeFileAtomic } from '@wrenn/base'
import { z } from 'zod'
import type { Layout } from './layout.js'
import { identify, isRunning, processIdSchema, signalProcess } from './process-id.js'

const ORPHAN_GRACE_MS = 20_000

const recordSchema = z.object({
  supervisor: processIdSchema,
  apiUrl: z.string(),
  children: z.array(processIdSchema.extend({ name: z.string() })),
})
export type UpRecord = z.infer<typeof recordSchema>
export type ChildRecord = UpRecord['children'][number]

export async function readRecord(layout: Layout): Promise<UpRecord | undefined> {
  try {
    return recordSchema.parse(JSON.parse(await readFile(layout.recordFile, 'utf8')))
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}

/** The record of the directory's `wrenn up` when that is alive. */
export async function findRunning(layout: Layout): Promise<UpRecord | undefined> {
  const record = await readRecord(layout)
  return record && (await isRunning(record.supervisor)) ? record : undefined
}

export function alreadyRunning(layout: Layout, record: UpRecord): AppError {
  return new AppError(
    'conflict',
    `Wrenn is running in ${layout.dir} already (pid ${record.supervisor.pid}, ${record.apiUrl}). ` +
      `Stop it with \`wrenn down --dir ${layout.dir}\`, or give another --dir.`,
    { details: { pid: record.supervisor.pid, apiUrl: record.apiUrl } },
  )
}

/** Ends what a killed supervisor left running, politely and then not. */
export async function stopOrphans(children: readonly ChildRecord[]): Promise<string[]> {
  const stopped: string[] = []
  for (const child of children) {
    if (!(await signalProcess(child, 'SIGTERM'))) continue
    stopped.push(child.name)
    const gone = async () => ((await isRunning(child)) ? undefined : true)
    try {
      await waitFor(gone, { timeoutMs: ORPHAN_GRACE_MS, intervalMs: 50, what: `${child.name} to end` })
    } catch (error) {
      if (!AppError.is(error, 'timeout')) throw error
      await signalProcess(child, 'SIGKILL')
    }
  }
  return stopped
}

/** A name only one process can listen on, and that the kernel frees when that one dies, however it dies; unix(7), "abstract". */
async function lockDirectory(layout: Layout): Promise<Server | undefined> {
  const { dev, ino } = await stat(layout.dir)
  const server = createServer((socket) => socket.destroy())
  server.listen(`\0wrenn-up-${dev}-${ino}`)
  try {
    await once(server, 'listening')
    server.unref()
    return server
  } catch (error) {
    if (isErrno(error, 'EADDRINUSE')) return undefined
    throw error
  }
}

/** The claim of one `wrenn up` on its directory, and the record of its children. */
export class DirectoryClaim implements AsyncDisposable {
  readonly #layout: Layout
  readonly #lock: Server
  #record: UpRecord

  private constructor(layout: Layout, lock: Server, record: UpRecord) {
    this.#layout = layout
    this.#lock = lock
    this.#record = record
  }

  /**
   * @returns the claim, and the names of processes of a killed predecessor that were stopped.
   * @throws AppError `conflict` when another `wrenn up` runs there.
   */
  static async take(layout: Layout, apiUrl: string): Promise<{ claim: DirectoryClaim; stopped: string[] }> {
    const supervisor = await identify(process.pid)
    if (!supervisor) throw new Error('this process is not in /proc')
    const lock = await lockDirectory(layout)
    const before = await readRecord(layout)
    if (!lock)
      throw before
        ? alreadyRunning(layout, before)
        : new AppError('conflict', `Wrenn is just starting in ${layout.dir}.`)
    const claim = new DirectoryClaim(layout, lock, { supervisor, apiUrl, children: [] })
    const stopped = await stopOrphans(before?.children ?? [])
    await claim.setChildren([])
    return { claim, stopped }
  }

  async setChildren(children: readonly ChildRecord[]): Promise<void> {
    this.#record = { ...this.#record, children: [...children] }
    await writeFileAtomic(this.#layout.recordFile, JSON.stringify(this.#record), 0o644)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#layout.recordFile, { force: true })
    await new Promise<void>((resolve) => this.#lock.close(() => resolve()))
  }
}
