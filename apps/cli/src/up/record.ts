import { link, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { AppError, isErrno, randomTag, waitFor, writeFileAtomic } from '@wrenn/base'
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

/** The claim of one `wrenn up` on its directory, and the record of its children. */
export class DirectoryClaim implements AsyncDisposable {
  readonly #layout: Layout
  #record: UpRecord

  private constructor(layout: Layout, record: UpRecord) {
    this.#layout = layout
    this.#record = record
  }

  /**
   * @returns the claim, and the names of processes of a killed predecessor that were stopped.
   * @throws AppError `conflict` when another `wrenn up` runs there.
   */
  static async take(layout: Layout, apiUrl: string): Promise<{ claim: DirectoryClaim; stopped: string[] }> {
    const supervisor = await identify(process.pid)
    if (!supervisor) throw new Error('this process is not in /proc')
    const record: UpRecord = { supervisor, apiUrl, children: [] }
    const beside = `${layout.recordFile}.${process.pid}.tmp`
    await writeFile(beside, JSON.stringify(record), { mode: 0o644 })
    try {
      const before = await clearStale(layout)
      await link(beside, layout.recordFile)
      const stopped = before ? await stopOrphans(before.children) : []
      return { claim: new DirectoryClaim(layout, record), stopped }
    } catch (error) {
      const rival = isErrno(error, 'EEXIST') ? await readRecord(layout) : undefined
      throw rival ? alreadyRunning(layout, rival) : error
    } finally {
      await rm(beside, { force: true })
    }
  }

  async setChildren(children: readonly ChildRecord[]): Promise<void> {
    this.#record = { ...this.#record, children: [...children] }
    await writeFileAtomic(this.#layout.recordFile, JSON.stringify(this.#record), 0o644)
  }

  async setApiUrl(apiUrl: string): Promise<void> {
    this.#record = { ...this.#record, apiUrl }
    await writeFileAtomic(this.#layout.recordFile, JSON.stringify(this.#record), 0o644)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#layout.recordFile, { force: true })
  }
}

/** Moves a dead supervisor's record away. The rename decides between two that try at once: the loser finds nothing. */
async function clearStale(layout: Layout): Promise<UpRecord | undefined> {
  const record = await readRecord(layout)
  if (!record) return undefined
  if (await isRunning(record.supervisor)) throw alreadyRunning(layout, record)
  const aside = `${layout.recordFile}.${randomTag('stale')}`
  await rename(layout.recordFile, aside)
  await rm(aside, { force: true })
  return record
}
