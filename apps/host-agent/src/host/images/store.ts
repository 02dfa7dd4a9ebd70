import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { access, chmod, mkdir, open, readdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { AppError, isErrno, UndoStack, writeFileAtomic } from '@wrenn/base'
import type { z } from 'zod'
import { removeTree } from '../remove-tree.js'
import { acquireBuildLock } from './build-lock.js'
import type { ImageStoreOptions } from './progress.js'

/** A finished file of the store. */
export interface LayerFile {
  readonly digest: string
  readonly path: string
  readonly sizeBytes: number
}

const digestPattern = /^[0-9a-f]{64}$/

/**
 * Content-addressed files under `<poolDir>/layers`:
 *
 *     <sha256>            read-only, complete by construction (written in scratch, then renamed)
 *     index/<name>.json   what a name means now; replaced atomically
 *     blank/<size>.ext4   formatted empty disks
 *     scratch/<random>/   only while the build lock is held; the next builder removes what an interrupted one left
 */
export class LayerStore {
  readonly #root: string

  constructor(poolDir: string) {
    this.#root = join(poolDir, 'layers')
  }

  layerPath(digest: string): string {
    return join(this.#root, digest)
  }

  blankPath(name: string): string {
    return join(this.#root, 'blank', name)
  }

  #indexPath(name: string): string {
    return join(this.#root, 'index', `${name}.json`)
  }

  /** The index entry, or `undefined` when there is none, it has another shape, or a file it names is gone. */
  async readIndex<Entry>(
    name: string,
    schema: z.ZodType<Entry>,
    digestsOf: (entry: Entry) => readonly string[],
  ): Promise<Entry | undefined> {
    const text = await readFile(this.#indexPath(name), 'utf8').catch((error: unknown) => {
      if (isErrno(error, 'ENOENT')) return undefined
      throw error
    })
    if (text === undefined) return undefined
    const parsed = schema.safeParse(parseJson(text))
    if (!parsed.success) return undefined
    const present = await Promise.all(digestsOf(parsed.data).map((digest) => exists(this.layerPath(digest))))
    return present.every(Boolean) ? parsed.data : undefined
  }

  /** Makes `name` mean this entry from now on, in one step. */
  async writeIndex(name: string, entry: unknown): Promise<void> {
    await writeFileAtomic(this.#indexPath(name), `${JSON.stringify(entry, null, 2)}\n`, 0o644)
  }

  async removeIndex(name: string): Promise<void> {
    await rm(this.#indexPath(name), { force: true })
  }

  async indexNames(): Promise<readonly string[]> {
    const names = await listFolder(join(this.#root, 'index'))
    return names.filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -'.json'.length))
  }

  /** All layers that are there, named or not. */
  async digests(): Promise<readonly string[]> {
    return (await listFolder(this.#root)).filter((name) => digestPattern.test(name))
  }

  /** Every digest that some index entry mentions, but for what an image says of itself (`config`): that names no layer, whatever it looks like. */
  async referencedDigests(): Promise<ReadonlySet<string>> {
    const found = new Set<string>()
    for (const name of await this.indexNames()) {
      for (const digest of digestsIn(parseJson(await readFile(this.#indexPath(name), 'utf8')))) found.add(digest)
    }
    return found
  }

  /** Whoever has it open keeps it. Missing ones are fine. */
  async removeLayer(digest: string): Promise<void> {
    await rm(this.layerPath(digest), { force: true })
  }

  /** Takes a finished file out of scratch into the store; an equal file already there wins. */
  async adopt(scratchPath: string, signal?: AbortSignal): Promise<LayerFile> {
    const digest = await sha256File(scratchPath, signal)
    const path = this.layerPath(digest)
    await publish(scratchPath, path)
    return { digest, path, sizeBytes: (await stat(path)).size }
  }

  /** As {@link adopt}, under a name instead of a digest. @returns its path */
  async publishBlank(scratchPath: string, name: string): Promise<string> {
    const path = this.blankPath(name)
    await publish(scratchPath, path)
    return path
  }

  /** True when the file's content is what its name says. */
  async isIntact(digest: string): Promise<boolean> {
    return (await sha256File(this.layerPath(digest))) === digest
  }

  /**
   * The right to build, alone among all processes, with an empty folder to do it in. Disposing removes the folder, then
   * lets the next one in.
   */
  async lease(options: Pick<ImageStoreOptions, 'signal' | 'onProgress'>): Promise<BuildLease> {
    const scratchRoot = join(this.#root, 'scratch')
    for (const folder of ['index', 'blank', 'scratch']) await mkdir(join(this.#root, folder), { recursive: true })
    await using undo = new UndoStack()
    const lock = await acquireBuildLock(join(this.#root, 'build.lock'), options)
    await undo.defer(() => lock[Symbol.asyncDispose]())
    for (const left of await readdir(scratchRoot)) await removeTree(join(scratchRoot, left))
    const path = join(scratchRoot, randomBytes(6).toString('hex'))
    await mkdir(path, { mode: 0o711 })
    await undo.defer(() => removeTree(path))
    return new BuildLease(path, undo.move())
  }

  /** @throws AppError `disk_full` */
  async requireSpace(bytes: number, what: string): Promise<void> {
    const { bavail, bsize } = await statfs(this.#root)
    const freeMib = Math.floor((bavail * bsize) / 1_048_576)
    const neededMib = Math.ceil(bytes / 1_048_576)
    if (freeMib >= neededMib) return
    throw new AppError(
      'disk_full',
      `Building ${what} needs ${neededMib} MiB in the pool and ${freeMib} MiB are free.`,
      {
        details: { neededMib, freeMib },
      },
    )
  }
}

class BuildLease implements AsyncDisposable {
  readonly scratchDir: string
  readonly #undo: UndoStack

  constructor(scratchDir: string, undo: UndoStack) {
    this.scratchDir = scratchDir
    this.#undo = undo
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo[Symbol.asyncDispose]()
  }
}

/** Read-only, durable, then visible under its name in one step. */
async function publish(from: string, to: string): Promise<void> {
  await chmod(from, 0o444)
  await syncPath(from)
  await rename(from, to)
  await syncPath(dirname(to))
}

/** Makes a file, or what a folder has by name, survive a crash. */
export async function syncPath(path: string): Promise<void> {
  const file = await open(path, 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Of all bytes, holes read as zeros; hexadecimal. Names the layer, so unlike `sparseDigest` it is what `sha256sum` says. */
export async function sha256File(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash, { ...(signal && { signal }) })
  return hash.digest('hex')
}

/** Whether something is at the path and can be reached; a link counts by its target. */
export async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}

async function listFolder(path: string): Promise<readonly string[]> {
  return await readdir(path).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  })
}

function digestsIn(value: unknown): readonly string[] {
  if (typeof value === 'string') return digestPattern.test(value) ? [value] : []
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => (key === 'config' ? [] : digestsIn(inner)))
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined // a torn or foreign file counts as no entry
  }
}
