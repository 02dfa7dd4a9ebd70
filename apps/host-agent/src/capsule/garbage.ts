import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno } from '@wrenn/base'
import { type Context, dirs } from './context.js'

/** What was touched this recently may belong to a command that has not told anybody yet. */
const YOUNG_MS = 10 * 60_000
const BLOCK_BYTES = 512

export interface GarbageItem {
  readonly kind: 'capsule_files' | 'generation' | 'draft'
  /** Directory below the pool. */
  readonly name: string
  readonly bytes: number
}

/** Finds and removes what nothing owns: files of capsules that are gone, states that were replaced, saves that were broken off. */
export class GarbageCollector {
  readonly #context: Context
  /** VMs outside capsules: the hot pool's and shapes being built. */
  readonly #isLive: (vmId: string) => boolean

  constructor(context: Context, isLive: (vmId: string) => boolean) {
    this.#context = context
    this.#isLive = isLive
  }

  async collect(dryRun: boolean): Promise<readonly GarbageItem[]> {
    const { states, logger } = this.#context
    const items: GarbageItem[] = []
    for (const item of await this.#find()) {
      if (await this.#isYoung(item.name)) continue
      items.push({ ...item, bytes: await bytesBelow(states.path(item.name)) })
      if (!dryRun) await states.remove(item.name)
    }
    if (!dryRun && items.length > 0) {
      const bytes = items.reduce((sum, item) => sum + item.bytes, 0)
      logger.info({ bytes, items: items.map(({ name }) => name) }, 'garbage.collected')
    }
    return items
  }

  async #find(): Promise<Omit<GarbageItem, 'bytes'>[]> {
    const { states, table } = this.#context
    const found: Omit<GarbageItem, 'bytes'>[] = []
    for (const name of await states.listAll('capsules')) {
      if (table.find(name) !== undefined) found.push(...(await this.#inCapsule(name)))
      else if (!this.#isLive(name)) found.push({ kind: 'capsule_files', name: `capsules/${name}` })
    }
    for (const folder of [dirs.snapshots(), 'templates']) {
      const drafts = (await states.listAll(folder)).filter((name) => name.endsWith('.tmp'))
      found.push(...drafts.map((name) => ({ kind: 'draft' as const, name: `${folder}/${name}` })))
    }
    return found
  }

  async #inCapsule(capsuleId: string): Promise<Omit<GarbageItem, 'bytes'>[]> {
    const { states, table } = this.#context
    return await table.exclusive(capsuleId, async () => {
      const record = table.find(capsuleId)?.record
      if (record === undefined) return []
      const owned = new Set([record.files, record.fallback].map(String))
      const generations = (await states.listAll(dirs.capsule(capsuleId))).filter(
        (name) => name !== 'checkpoints' && !owned.has(name),
      )
      const drafts = (await states.listAll(dirs.checkpoints(capsuleId))).filter((name) => name.endsWith('.tmp'))
      return [
        ...generations.map((name) => ({ kind: 'generation' as const, name: `${dirs.capsule(capsuleId)}/${name}` })),
        ...drafts.map((name) => ({ kind: 'draft' as const, name: `${dirs.checkpoints(capsuleId)}/${name}` })),
      ]
    })
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
    if (entry.isFile()) bytes += (await stat(join(entry.parentPath, entry.name))).blocks * BLOCK_BYTES
  }
  return bytes
}
