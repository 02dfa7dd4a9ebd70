import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { AppError, type Logger, UndoStack, writeFileAtomic } from '@wrenn/base'
import type { Hardware } from '@wrenn/vmm'
import { z } from 'zod'
import type { Guest } from '../guest/index.js'
import type { Machine, TemplateImage } from '../machine.js'
import { hardwareOf } from '../state/index.js'
import { type GuestFiles, hardwareSchema } from '../state-files.js'
import type { CapsuleSpec } from '../types.js'

/** A memory snapshot fixes what it was taken of: the same template, machine size and hardware restore it, nothing else. */
export interface Shape extends CapsuleSpec {
  /** Digest of everything below, of the image and of the engine as it is installed; names the snapshot's directory. */
  readonly key: string
  /** The same without the engine's version and hardware: snapshots of one family serve the same creates. */
  readonly family: string
  /** What a guest that is booted for it gets. */
  readonly hardware: Hardware
  readonly image: TemplateImage
}

const manifestSchema = z.object({
  format: z.literal(1),
  key: z.string(),
  template: z.string(),
  imageDigest: z.string(),
  vcpus: z.number(),
  memoryMib: z.number(),
  diskSizeMib: z.number(),
  engine: z.string(),
  engineVersion: z.string(),
  /** Absent in snapshots from before guests had it. */
  hardware: hardwareSchema.optional(),
  agentVersion: z.string(),
  /** The waiting guest knows the host by this; each capsule gets its own at once. */
  secret: z.string(),
  createdAtMs: z.number(),
  stateSha256: z.string(),
})

type ShapeManifest = z.infer<typeof manifestSchema>

/** A saved guest that creates of its shape restore. It is nobody's yet: its secret is replaced when it becomes a capsule. */
export interface ShapeSnapshot {
  /** Names its directory, too; of one that another version of the engine made, not the present shape's. */
  readonly key: string
  readonly shape: Shape
  /** What it was saved on. */
  readonly hardware: Hardware
  readonly files: GuestFiles
  readonly secret: string
  readonly agentVersion: string
}

const MANIFEST = 'manifest.json'
const MAX_SHAPES = 16

/**
 * Booted, warmed and saved guests, one per shape, under `pool/templates/<key>/`. A snapshot is offered only after its
 * manifest was renamed into place, which is its last step.
 */
export class ShapeStore {
  readonly #machine: Machine
  readonly #logger: Logger
  readonly #known = new Map<string, ShapeSnapshot>()
  readonly #lastUse = new Map<string, number>()

  constructor(machine: Machine, logger: Logger) {
    this.#machine = machine
    this.#logger = logger
  }

  /** @throws AppError `template_not_found` */
  async describe(spec: CapsuleSpec): Promise<Shape> {
    const image = await this.#machine.images.template(spec.template)
    const { engine } = this.#machine
    const { vcpus, memoryMib, diskSizeMib } = spec
    const [hardware, version] = await Promise.all([engine.newHardware(), engine.version()])
    const family = digestOf([image.digest, vcpus, memoryMib, diskSizeMib, engine.name])
    const { machine, cpu, layout } = hardware
    const digest = digestOf([family, machine, cpu, layout, version])
    const key = `${image.name}-${vcpus}x${memoryMib}-${digest}`
    return { template: image.name, vcpus, memoryMib, diskSizeMib, image, hardware, family, key }
  }

  /** The snapshot of a shape, once there is one that is complete. */
  async find(shape: Shape): Promise<ShapeSnapshot | undefined> {
    this.#lastUse.set(shape.key, performance.now())
    const known = this.#known.get(shape.key)
    if (known !== undefined) return known
    const loaded = await this.#load(shape, shape.key)
    if (loaded !== undefined) this.#known.set(shape.key, loaded)
    return loaded
  }

  /** The snapshot of a shape, or one that another version of the engine made and this one loads. */
  async findLoadable(shape: Shape): Promise<ShapeSnapshot | undefined> {
    return (await this.find(shape)) ?? (await this.#findEarlier(shape))
  }

  async #findEarlier(shape: Shape): Promise<ShapeSnapshot | undefined> {
    for (const name of await this.#names()) {
      const manifest = await this.#manifest(name).catch(() => undefined)
      if (manifest === undefined || !isOf(manifest, shape, this.#machine)) continue
      if ((await this.#machine.engine.obstacle(hardwareOf(manifest))) !== undefined) continue
      const loaded = await this.#load(shape, name)
      if (loaded !== undefined) return loaded
    }
    return undefined
  }

  /** Shapes that another version of the engine made snapshots of, and the present one none; loadable or not. */
  async outdated(current: readonly TemplateImage[]): Promise<Shape[]> {
    const names = new Set(await this.#names())
    const found = new Map<string, Shape>()
    for (const name of names) {
      const manifest = await this.#manifest(name).catch(() => undefined) // damaged, or half removed: nothing to make anew
      const image = current.find(({ digest }) => digest === manifest?.imageDigest)
      if (manifest === undefined || image === undefined) continue
      const shape = await this.describe({ ...manifest, template: image.name })
      if (!names.has(shape.key) && isOf(manifest, shape, this.#machine)) found.set(shape.key, shape)
    }
    return [...found.values()]
  }

  /** Saves a warmed guest as its shape's snapshot. The guest is stopped for the moment and runs on afterwards. */
  async save(shape: Shape, guest: Guest, secret: string, agentVersion: string): Promise<ShapeSnapshot> {
    const dir = this.#dir(shape.key)
    const draft = `${dir}.${randomBytes(4).toString('hex')}.tmp`
    await using undo = new UndoStack()
    await mkdir(draft, { recursive: true, mode: 0o700 })
    await undo.defer(() => rm(draft, { recursive: true, force: true }))
    await guest.vm.pause()
    try {
      await guest.vm.save(join(draft, 'state'))
      const owner = { uid: 0, gid: 0, mode: 0o400 }
      const files = join(this.#machine.pool.path, guest.resources.dir)
      await this.#machine.pool.clone(join(files, 'mem'), join(draft, 'mem'), owner)
      await this.#machine.pool.clone(join(files, 'disk.raw'), join(draft, 'disk.raw'), owner)
    } finally {
      await guest.vm.resume()
    }
    const { engine } = this.#machine
    const hardware = guest.vm.record.hardware ?? shape.hardware
    const manifest: ShapeManifest = {
      format: 1,
      key: shape.key,
      template: shape.template,
      imageDigest: shape.image.digest,
      vcpus: shape.vcpus,
      memoryMib: shape.memoryMib,
      diskSizeMib: shape.diskSizeMib,
      engine: engine.name,
      engineVersion: await engine.version(),
      hardware,
      agentVersion,
      secret,
      createdAtMs: Date.now(),
      stateSha256: await sha256(join(draft, 'state')),
    }
    await writeFileAtomic(join(draft, MANIFEST), JSON.stringify(manifest))
    await rm(dir, { recursive: true, force: true })
    await rename(draft, dir)
    undo.move()
    const snapshot = { key: shape.key, shape, hardware, files: filesIn(dir), secret, agentVersion }
    this.#known.set(shape.key, snapshot)
    this.#lastUse.set(shape.key, performance.now())
    this.#logger.info({ shape: shape.key }, 'shape.saved')
    await this.#evict()
    return snapshot
  }

  /** Forgets a snapshot that turned out not to restore. */
  async discard({ key }: Pick<ShapeSnapshot, 'key'>): Promise<void> {
    this.#known.delete(key)
    await rm(this.#dir(key), { recursive: true, force: true })
    this.#logger.warn({ shape: key }, 'shape.discarded')
  }

  /** Removes the snapshots of a template whose image is gone. */
  async forgetTemplate(template: string): Promise<void> {
    for (const name of await this.#names()) {
      const manifest = await this.#manifest(name).catch(() => undefined)
      if (manifest?.template === template) await this.discard({ key: name })
    }
  }

  /**
   * Removes unfinished drafts, what another image left, what this engine cannot load, and what a newer snapshot replaces; only
   * before the first create.
   */
  async sweep(current: readonly TemplateImage[]): Promise<void> {
    await mkdir(this.#root(), { recursive: true, mode: 0o711 })
    for (const name of await readdir(this.#root())) {
      if (!(await this.#isWorthKeeping(name, current)))
        await rm(join(this.#root(), name), { recursive: true, force: true })
    }
  }

  /** Keeps the shapes used last; a capsule does not need the snapshot it was cloned from. */
  async #evict(): Promise<void> {
    const byUse = (await this.#names()).sort((a, b) => (this.#lastUse.get(b) ?? 0) - (this.#lastUse.get(a) ?? 0))
    for (const name of byUse.slice(MAX_SHAPES)) {
      this.#known.delete(name)
      await rm(this.#dir(name), { recursive: true, force: true })
      this.#logger.info({ shape: name }, 'shape.evicted')
    }
  }

  async #isWorthKeeping(name: string, current: readonly TemplateImage[]): Promise<boolean> {
    if (name.endsWith('.tmp')) return false
    const manifest = await this.#manifest(name).catch(() => undefined)
    const image = current.find(({ digest }) => digest === manifest?.imageDigest)
    if (manifest === undefined || image === undefined) return false
    const shape = await this.describe({ ...manifest, template: image.name })
    if (name === shape.key) return true
    if (!isOf(manifest, shape, this.#machine) || (await this.#manifest(shape.key).catch(() => undefined)) !== undefined)
      return false
    return (await this.#machine.engine.obstacle(hardwareOf(manifest))) === undefined
  }

  async #load(shape: Shape, key: string): Promise<ShapeSnapshot | undefined> {
    const manifest = await this.#manifest(key).catch(() => undefined)
    if (manifest === undefined) return undefined
    const files = filesIn(this.#dir(key))
    const problem = await this.#damage(shape, files, manifest.stateSha256)
    if (problem !== undefined) {
      this.#logger.error({ shape: key, problem }, 'shape.damaged')
      await this.discard({ key })
      return undefined
    }
    const { secret, agentVersion } = manifest
    return { key, shape, hardware: hardwareOf(manifest), files, secret, agentVersion }
  }

  /** Directories of complete snapshots. */
  async #names(): Promise<string[]> {
    return (await readdir(this.#root())).filter((name) => !name.endsWith('.tmp'))
  }

  async #damage(shape: Shape, files: GuestFiles, stateSha256: string): Promise<string | undefined> {
    try {
      const memory = await stat(files.memoryPath)
      if (memory.size !== shape.memoryMib * 2 ** 20) return 'the memory file has the wrong size'
      await stat(files.diskPath)
      return (await sha256(files.statePath)) === stateSha256
        ? undefined
        : 'the device state does not match its checksum'
    } catch (error) {
      return String(error)
    }
  }

  async #manifest(key: string): Promise<ShapeManifest> {
    return manifestSchema.parse(JSON.parse(await readFile(join(this.#dir(key), MANIFEST), 'utf8')))
  }

  #dir(key: string): string {
    if (key.includes('/')) throw new AppError('internal', 'A shape key must not contain a slash.')
    return join(this.#root(), key)
  }

  #root(): string {
    return join(this.#machine.pool.path, 'templates')
  }
}

/** Whether the engine, as it was when its shape was described, made the snapshot; one of another version still serves. */
export function isCurrent({ key, shape }: ShapeSnapshot): boolean {
  return key === shape.key
}

/** Whether a snapshot is of this shape's family. */
function isOf(manifest: ShapeManifest, shape: Shape, { engine }: Pick<Machine, 'engine'>): boolean {
  const { vcpus, memoryMib, diskSizeMib, image } = shape
  return (
    manifest.engine === engine.name &&
    manifest.imageDigest === image.digest &&
    manifest.vcpus === vcpus &&
    manifest.memoryMib === memoryMib &&
    manifest.diskSizeMib === diskSizeMib
  )
}

function digestOf(facts: readonly (string | number)[]): string {
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 16)
}

function filesIn(dir: string): GuestFiles {
  return { diskPath: join(dir, 'disk.raw'), memoryPath: join(dir, 'mem'), statePath: join(dir, 'state') }
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}
