import { createHash, randomBytes } from 'node:crypto'
import { chmod, chown, copyFile, mkdir, readdir, readFile, rename, stat, unlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { AppError, errorText, isErrno, settleAll, UndoStack, writeFileAtomic } from '@wrenn/base'
import { type Hardware, hardwareOfVersion } from '@wrenn/vmm'
import { z } from 'zod'
import { LOADER_FILES } from '../../host/loader/index.js'
import { removeTree } from '../../host/remove-tree.js'
import type { Machine, TemplateImage } from '../machine.js'
import { type GuestFiles, hardwareSchema, STATE_FILES, type StoredImage, storedImageSchema } from '../state-files.js'

const manifestSchema = z.object({
  format: z.literal(1),
  capsuleId: z.string(),
  teamId: z.string(),
  /** The checkpoint that the capsule stood on. */
  parentId: z.string(),
  template: z.string(),
  vcpus: z.number(),
  memoryMib: z.number(),
  diskSizeMib: z.number(),
  engine: z.string(),
  /** What saved it, for people. */
  engineVersion: z.string(),
  /** What it loads into; absent in states from before guests had it. */
  hardware: hardwareSchema.optional(),
  kernelVersion: z.string(),
  agentVersion: z.string(),
  image: storedImageSchema,
  /** The saved guest knows its host by this. */
  secret: z.string(),
  stateSha256: z.string(),
  /** Whether the disk alone has every file: the guest had written all out when it was stopped. */
  synced: z.boolean(),
  savedAtMs: z.number(),
  bootId: z.string(),
})
/** What a saved state is and what it needs: plain JSON beside its files, whose rename makes the state exist. */
export type StateManifest = z.infer<typeof manifestSchema>

const durableSchema = z.object({
  format: z.literal(1),
  /** Of the state that was flushed: a flush that ends late says nothing about the state that came after it. */
  stateSha256: z.string(),
  atMs: z.number(),
  /** The checksums were not made by the run of the host agent that saved the state. */
  isLate: z.boolean().optional(),
  files: z.record(z.string(), z.object({ bytes: z.number(), sha256: z.string() })),
})
/** Proof that a state is on the disk: its checksums as they were read back after the flush. */
export type Durable = z.infer<typeof durableSchema>

/** Compares files with their checksums. @returns a sentence that names the first damaged one */
export type VerifyFiles = (dir: string, files: Durable['files']) => Promise<string | undefined>

const MANIFEST = 'manifest.json'
/** Says that a state reached the disk of its host. */
export const DURABLE = 'durable.json'
const DRAFT_SUFFIX = '.tmp'
/** Less than whoever asked for a copy waits. */
const WHOLE_MS = 45_000

/**
 * Digests of the read-only files that the states below a folder of the pool need; `undefined` while a manifest cannot be
 * read, for it may be put right again.
 */
export async function layersOfStates(poolPath: string, folder: string): Promise<string[] | undefined> {
  const paths = (await readdir(join(poolPath, folder)).catch(() => [])).map((name) => join(poolPath, folder, name))
  const needed: string[] = []
  for (const path of paths) {
    try {
      needed.push(...manifestSchema.parse(JSON.parse(await readFile(join(path, MANIFEST), 'utf8'))).image.layers)
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    }
  }
  return needed
}

/** What of the machine saved states depend on. */
export type StateMachine = Pick<Machine, 'pool' | 'engine' | 'memory'>

/** Only root reads a state that no guest runs on: the uid of the slot it ran in is another capsule's next. */
const ROOT = { uid: 0, gid: 0, mode: 0o600 }
const DIRECTORY_MODE = 0o711

/**
 * Saved states: a directory with device state, memory, disk and, last of all, a manifest. The manifest's rename is what makes
 * a state exist; without one the directory is a draft, or belongs to a running guest. Paths are relative to the pool.
 */
export class StateStore {
  readonly #machine: StateMachine

  constructor(machine: StateMachine) {
    this.#machine = machine
  }

  /** The absolute path of a directory of the pool. */
  path(dir: string): string {
    return join(this.#machine.pool.path, dir)
  }

  /** Where its three files are, whether or not they exist. */
  files(dir: string): GuestFiles {
    const at = (name: string) => join(this.path(dir), name)
    return {
      diskPath: at(STATE_FILES.disk),
      memoryPath: at(STATE_FILES.memory),
      statePath: at(STATE_FILES.state),
    }
  }

  /** Makes the state complete; from here on it exists. Whoever just wrote its device state may know the checksum already. */
  async commit(
    dir: string,
    manifest: Omit<StateManifest, 'format' | 'stateSha256'>,
    savedSha256?: string,
  ): Promise<StateManifest> {
    const stateSha256 = savedSha256 ?? (await sha256(this.files(dir).statePath))
    const full: StateManifest = { ...manifest, format: 1, stateSha256 }
    await remove(join(this.path(dir), DURABLE))
    await replace(join(this.path(dir), MANIFEST), JSON.stringify(full))
    return full
  }

  /** Takes the state's existence back: a guest is about to run on its files. */
  async retract(dir: string): Promise<void> {
    for (const name of [DURABLE, MANIFEST]) await remove(join(this.path(dir), name))
  }

  /** Whether there is a complete state, be it damaged. */
  async exists(dir: string): Promise<boolean> {
    return (await sizeOf(join(this.path(dir), MANIFEST))) !== undefined
  }

  /** The manifest of a complete state; `undefined` when there is none. @throws AppError `snapshot_damaged` */
  async read(dir: string): Promise<StateManifest | undefined> {
    return await this.#json(dir, MANIFEST, manifestSchema)
  }

  /** When and with which checksums the state reached the disk; `undefined` while it has not. */
  async durable(dir: string): Promise<Durable | undefined> {
    const [manifest, durable] = await Promise.all([this.read(dir), this.#json(dir, DURABLE, durableSchema)])
    return durable?.stateSha256 === manifest?.stateSha256 ? durable : undefined
  }

  /** Notes that the state with this checksum has reached the disk. @returns when, Unix milliseconds */
  async markDurable(dir: string, proof: Omit<Durable, 'format' | 'atMs'>): Promise<number> {
    const durable: Durable = { format: 1, atMs: Date.now(), ...proof }
    await writeFileAtomic(join(this.path(dir), DURABLE), JSON.stringify(durable))
    return durable.atMs
  }

  /**
   * A state that can be restored here: it is intact, and the engine has the hardware that it was saved on.
   * @throws AppError `snapshot_damaged` naming the file, `state_not_loadable`
   */
  async usable(dir: string, wayOut?: string): Promise<StateManifest> {
    const manifest = await this.intact(dir)
    await this.requireLoadable(manifest, wayOut)
    return manifest
  }

  /**
   * A state of which nothing is missing, checked in constant time: the whole device state, the sizes of the rest.
   * @throws AppError `snapshot_damaged` naming the file
   */
  async intact(dir: string): Promise<StateManifest> {
    const manifest = await this.read(dir)
    if (manifest === undefined) throw damaged(dir, `${MANIFEST} is missing`)
    const { memory } = this.#machine
    if ((await memory.status(this.path(dir))) === 'broken') {
      throw damaged(
        dir,
        `its memory was never whole here. ${(await memory.failure(this.path(dir))).replace(/\.$/, '')}`,
      )
    }
    const { statePath, memoryPath } = this.files(dir)
    await Promise.all([
      this.#requireSize(dir, memoryPath, manifest.memoryMib * 2 ** 20),
      this.#requireChecksum(dir, statePath, manifest.stateSha256),
      this.intactDisk(dir, manifest),
    ])
    return manifest
  }

  /** What a guest needs to boot on the disk in `dir` is all there. @throws AppError `snapshot_damaged` naming the file */
  async intactDisk(dir: string, made: Pick<StateManifest, 'diskSizeMib' | 'image'>): Promise<void> {
    const { basePath, agentPath, kernelPath, initrdPath } = made.image
    await Promise.all([
      this.#requireSize(dir, this.files(dir).diskPath, made.diskSizeMib * 2 ** 20),
      ...[basePath, agentPath, kernelPath, initrdPath].map((path) => this.#requireLayer(dir, path)),
    ])
  }

  /**
   * `wayOut` is a sentence for where a start from the disk is not the next step itself.
   * @throws AppError `state_not_loadable` when the engine, as it is installed now, lacks the hardware of a state
   */
  async requireLoadable(manifest: StateManifest, wayOut = ''): Promise<void> {
    const { engine } = this.#machine
    const saved = `The state was saved by ${manifest.engine} (${manifest.engineVersion})`
    const refuse = (why: string) =>
      new AppError(
        'state_not_loadable',
        `${saved} and cannot be loaded here: ${why}. Its files are all there. ${wayOut}`.trim(),
      )
    if (manifest.engine !== engine.name) throw refuse(`this host runs ${engine.name} (${await engine.version()})`)
    const obstacle = await engine.obstacle(hardwareOf(manifest))
    if (obstacle !== undefined) throw refuse(obstacle)
  }

  /** Copies a state's files (by reflink) and its device state into a new draft, and makes it complete. */
  async copy(from: string, to: string, change: Partial<StateManifest> = {}): Promise<StateManifest> {
    await this.#patiently((signal) => this.finish(from, signal))
    const manifest = await this.intact(from)
    await using draft = await this.draft(to)
    const [source, target] = [this.files(from), this.files(draft.dir)]
    await settleAll([
      this.#machine.pool.clone(source.memoryPath, target.memoryPath, ROOT),
      this.#machine.pool.clone(source.diskPath, target.diskPath, ROOT),
      copyFile(source.statePath, target.statePath),
    ])
    const copied = await this.commit(draft.dir, { ...manifest, ...change })
    await draft.keep()
    return copied
  }

  /** An empty directory beside `dir` that takes its name with `keep()`, and is removed otherwise. */
  async draft(dir: string): Promise<Draft> {
    const draft = `${dir}.${randomBytes(4).toString('hex')}${DRAFT_SUFFIX}`
    await this.#makeDirectory(draft)
    const undo = new UndoStack()
    await undo.defer(() => this.remove(draft))
    return {
      dir: draft,
      keep: async () => {
        await this.remove(dir)
        await rename(this.path(draft), this.path(dir))
        undo.move()
      },
      [Symbol.asyncDispose]: () => undo[Symbol.asyncDispose](),
    }
  }

  /**
   * A state whose memory and disk are, byte by byte, what was saved; reads all that is in them. While the run of the host agent that saved it has not
   * made its checksums yet, which is a matter of a second, there is nothing to compare with.
   * @param isOwn whether this run has saved it
   * @throws AppError `snapshot_damaged` naming the file, or saying that nobody knows any more what it was
   */
  async verify(dir: string, verifyFiles: VerifyFiles, isOwn: boolean): Promise<void> {
    const durable = await this.durable(dir)
    if (durable === undefined && isOwn) return
    if (durable === undefined || durable.isLate === true) {
      const why =
        'it may not be what was saved, for the host agent that saved it ended before it had made its checksums'
      throw damaged(dir, `${why}; make the snapshot anew, of a capsule that starts from it`)
    }
    const problem = await verifyFiles(this.path(dir), durable.files)
    if (problem !== undefined) throw damaged(dir, problem.replace(/\.$/, ''))
  }

  /** A rename: `to` must not be there. */
  async move(from: string, to: string): Promise<void> {
    await this.#makeDirectory(dirname(to))
    await rename(this.path(from), this.path(to))
  }

  /**
   * Takes a directory's name away in one step, which needs no room on a disk, so that from then on it is not there: what is left
   * is a draft. @returns the draft's name
   */
  async disown(dir: string): Promise<string> {
    const draft = `${dir}.${randomBytes(4).toString('hex')}${DRAFT_SUFFIX}`
    await rename(this.path(dir), this.path(draft))
    return draft
  }

  /** Takes along what a guest read first the last time that it came from an object store: a hint for the next time. */
  async copyHint(from: string, to: string): Promise<void> {
    const [source, target] = [from, to].map((dir) => join(this.path(dir), LOADER_FILES.workingSet))
    // Without it the order is another one: no reason to fail, whatever the disk says.
    if (source !== undefined && target !== undefined) await copyFile(source, target).catch(() => {})
  }

  /** Makes a state of plain files, all of them here, of one that no guest runs on. @throws AppError `snapshot_damaged`; the signal's reason */
  async finish(dir: string, signal: AbortSignal): Promise<void> {
    await this.#machine.memory.finish(this.path(dir), signal)
  }

  /**
   * The memory that a guest runs on, as a file that can be cloned.
   * @throws AppError `conflict` when it does not come in time, `snapshot_damaged` when it never will
   */
  async wholeMemory(dir: string): Promise<string> {
    const { memory } = this.#machine
    await this.#patiently((signal) => memory.whole(this.path(dir), signal))
    return await memory.source(this.path(dir))
  }

  async #patiently(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const signal = AbortSignal.timeout(WHOLE_MS)
    try {
      await work(signal)
    } catch (error) {
      if (!signal.aborted) throw error
      const message = `The capsule's memory still comes from the object store after ${WHOLE_MS / 1000} seconds: try again when it is here.`
      throw new AppError('conflict', message, { cause: error })
    }
  }

  /** The manifest first: a removal that is broken off must not leave what looks like a state. */
  async remove(dir: string): Promise<void> {
    await this.retract(dir)
    await this.#machine.memory.drop(this.path(dir))
    await removeTree(this.path(dir))
  }

  /** Removes a state at once for everybody: what is left where that is broken off is a draft. What has no manifest goes, too. */
  async discard(dir: string): Promise<void> {
    try {
      await this.remove(await this.disown(dir))
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error // it is gone
    }
  }

  /** Nobody but root reads the state's files any more. */
  async seal(dir: string): Promise<void> {
    const sealFile = async (path: string): Promise<void> => {
      await chown(path, ROOT.uid, ROOT.gid).catch(ignoreGone)
      await chmod(path, ROOT.mode).catch(ignoreGone)
    }
    await Promise.all([...Object.values(this.files(dir)).map(sealFile), chown(this.path(dir), ROOT.uid, ROOT.gid)])
  }

  /** Names in a folder of the pool, without drafts. */
  async list(dir: string): Promise<string[]> {
    return (await this.#entries(dir)).filter((name) => !name.endsWith(DRAFT_SUFFIX))
  }

  /** Names in a folder of the pool, drafts too. */
  async listAll(dir: string): Promise<string[]> {
    return await this.#entries(dir)
  }

  /** Removes what an interrupted save left in a folder. */
  async removeDrafts(dir: string): Promise<string[]> {
    const drafts = (await this.#entries(dir)).filter((name) => name.endsWith(DRAFT_SUFFIX))
    for (const name of drafts) await this.remove(join(dir, name))
    return drafts
  }

  /** A template's files as states refer to them: relative, so that the pool may move. */
  store(image: TemplateImage): StoredImage {
    const below = (path: string) => relative(this.#machine.pool.path, path)
    return {
      digest: image.digest,
      basePath: below(image.basePath),
      agentPath: below(image.agentPath),
      kernelPath: below(image.kernel.kernelPath),
      initrdPath: below(image.kernel.initrdPath),
      kernelArgs: [...image.kernel.args],
      layers: [...image.layers],
    }
  }

  async #makeDirectory(dir: string): Promise<void> {
    const path = this.path(dir)
    await mkdir(path, { recursive: true, mode: DIRECTORY_MODE })
    await chmod(path, DIRECTORY_MODE)
  }

  async #entries(dir: string): Promise<string[]> {
    try {
      return await readdir(this.path(dir))
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return []
      throw error
    }
  }

  async #json<T>(dir: string, name: string, schema: z.ZodType<T>): Promise<T | undefined> {
    let text: string
    try {
      text = await readFile(join(this.path(dir), name), 'utf8')
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
      throw error
    }
    try {
      return schema.parse(JSON.parse(text))
    } catch (error) {
      throw damaged(dir, `${name} cannot be understood`, error)
    }
  }

  async #requireSize(dir: string, path: string, bytes: number): Promise<void> {
    const found = await sizeOf(path)
    const name = path.slice(path.lastIndexOf('/') + 1)
    if (found === undefined) throw damaged(dir, `${name} is missing`)
    if (found !== bytes) throw damaged(dir, `${name} has ${found} bytes instead of ${bytes}`)
  }

  async #requireChecksum(dir: string, path: string, wanted: string): Promise<void> {
    const found = await sha256(path).catch((error: unknown) => {
      throw damaged(dir, `${STATE_FILES.state} cannot be read (${errorText(error)})`)
    })
    if (found !== wanted) throw damaged(dir, `${STATE_FILES.state} does not match its checksum`)
  }

  async #requireLayer(dir: string, path: string): Promise<void> {
    if ((await sizeOf(join(this.#machine.pool.path, path))) === undefined) {
      throw damaged(dir, `its layer ${path} is missing`)
    }
  }
}

/** The hardware that a state loads into, or that a guest has, of which this is on record. */
export function hardwareOf(saved: {
  readonly engine: string
  readonly engineVersion: string
  readonly hardware?: Hardware | undefined
}): Hardware {
  const { engine, engineVersion } = saved
  return saved.hardware ?? hardwareOfVersion(engine, engineVersion) ?? { machine: engineVersion, cpu: '', layout: 1 }
}

interface Draft extends AsyncDisposable {
  readonly dir: string
  keep(): Promise<void>
}

function damaged(dir: string, problem: string, cause?: unknown): AppError {
  return new AppError('snapshot_damaged', `The saved state ${dir} is damaged: ${problem}.`, { cause })
}

function ignoreMissing(error: unknown): void {
  if (!isErrno(error, 'ENOENT', 'ENOTDIR')) throw error
}

/** ENOTCONN: a memory that nobody serves any more, which counts for nothing. */
function ignoreGone(error: unknown): void {
  if (!isErrno(error, 'ENOTCONN')) ignoreMissing(error)
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    throw error
  }
}

/** Replaced in one step and in the page cache at once; the flusher brings it to the disk later. */
async function replace(path: string, text: string): Promise<void> {
  const beside = `${path}${DRAFT_SUFFIX}`
  await writeFile(beside, text, { mode: 0o600 })
  await rename(beside, path)
}

async function remove(path: string): Promise<void> {
  await unlink(path).catch(ignoreMissing)
}

/** Of a device state: half a megabyte. */
async function sha256(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
}
