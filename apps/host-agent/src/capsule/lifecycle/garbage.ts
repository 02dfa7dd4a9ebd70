import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno } from '@wrenn/base'
import { allocatedBytes } from '../../host/allocated.js'
import { type Context, dirs } from '../context.js'

/** What was touched this recently may belong to a command that has not told anybody yet. */
const YOUNG_MS = 10 * 60_000
/** As `dirs.scratch` names them: in use by this process, for however long it takes. */
const SCRATCH = /-(seed|diff)-[0-9a-f]{8}$/

/** A directory that nothing owns: of a capsule that is gone, a state that was replaced, or a save that was broken off. */
export interface GarbageItem {
  readonly kind: 'capsule_files' | 'generation' | 'draft'
  /** Directory below the pool. */
  readonly name: string
  /** Allocated, shared blocks counted as if they were its own: more than removing it gives back. */
  readonly bytes: number
}

type Found = Omit<GarbageItem, 'bytes'>

/** Finds and removes what nothing owns: files of capsules that are gone, states that were replaced, saves that were broken off. */
export class GarbageCollector {
  readonly #context: Context
  /** VMs outside capsules: the hot pool's and shapes being built. */
  readonly #isLive: (vmId: string) => boolean

  constructor(context: Context, isLive: (vmId: string) => boolean) {
    this.#context = context
    this.#isLive = isLive
  }

  /** Gives what was found and, unless `dryRun`, is gone. Nothing that was touched in the last ten minutes counts. */
  async collect(dryRun: boolean): Promise<readonly GarbageItem[]> {
    const { states, table, logger } = this.#context
    const items: GarbageItem[] = []
    for (const name of await states.listAll('capsules')) {
      // Some commands take as long as a whole state takes from the object store; what is garbage afterwards is found the next time.
      if (table.isBusy(name)) continue
      const find = async (): Promise<void> =>
        void items.push(...(await this.#sift(await this.#ofCapsule(name), dryRun)))
      // No command works on the capsule between the look and the removal, nor makes it.
      await table.exclusive(name, find)
    }
    for (const folder of [dirs.snapshots(), 'templates']) {
      items.push(...(await this.#sift(await this.#drafts(folder), dryRun)))
    }
    if (!dryRun && items.length > 0) {
      const bytes = items.reduce((sum, item) => sum + item.bytes, 0)
      logger.info({ bytes, items: items.map(({ name }) => name) }, 'garbage.collected')
    }
    return items
  }

  /** Of what nothing owns, that which is old enough; removed unless `dryRun`. */
  async #sift(found: readonly Found[], dryRun: boolean): Promise<GarbageItem[]> {
    const { states } = this.#context
    const items: GarbageItem[] = []
    for (const item of found) {
      if (await this.#isYoung(item.name)) continue
      items.push({ ...item, bytes: await bytesBelow(states.path(item.name)) })
      if (!dryRun) await states.remove(item.name)
    }
    return items
  }

  async #ofCapsule(capsuleId: string): Promise<Found[]> {
    const { states, table } = this.#context
    const record = table.find(capsuleId)?.record
    const dir = dirs.capsule(capsuleId)
    if (record === undefined)
      return this.#isLive(capsuleId) || SCRATCH.test(capsuleId) ? [] : [{ kind: 'capsule_files', name: dir }]
    const owned = new Set(['checkpoints', ...[record.files, record.fallback].map(String)])
    const generations = (await states.listAll(dir)).filter((name) => !owned.has(name))
    return [
      ...generations.map((name) => ({ kind: 'generation' as const, name: `${dir}/${name}` })),
      ...(await this.#drafts(dirs.checkpoints(capsuleId))),
    ]
  }

  async #drafts(folder: string): Promise<Found[]> {
    const drafts = (await this.#context.states.listAll(folder)).filter((name) => name.endsWith('.tmp'))
    return drafts.map((name) => ({ kind: 'draft' as const, name: `${folder}/${name}` }))
  }

  async #isYoung(dir: string): Promise<boolean> {
    try {
      return Date.now() - (await stat(this.#context.states.path(dir))).mtimeMs < YOUNG_MS
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return true
      throw error
    }
  }
}

/** Allocated bytes of all files below a directory. */
async function bytesBelow(path: string): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(path, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) bytes += allocatedBytes(await stat(join(entry.parentPath, entry.name)))
  }
  return bytes
}
