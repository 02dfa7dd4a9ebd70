import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { AppError, type Logger, UndoStack, writeFileAtomic } from '@wrenn/base'
import { z } from 'zod'
import type { Guest } from './guest.js'
import type { Machine, TemplateImage } from './machine.js'
import type { GuestFiles } from './state-files.js'
import type { CapsuleSpec } from './types.js'

/** A memory snapshot fixes what it was taken of: the same template, machine size and engine restore it, nothing else. */
export interface Shape extends CapsuleSpec {
  /** Directory-safe digest of everything below and of the image. */
  readonly key: string
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
  agentVersion: z.string(),
  /** The waiting guest knows the host by this; each capsule gets its own at once. */
  secret: z.string(),
  createdAtMs: z.number(),
  stateSha256: z.string(),
})

export interface ShapeSnapshot {
  readonly shape: Shape
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
    const facts = [
      image.digest,
      spec.vcpus,
      spec.memoryMib,
      spec.diskSizeMib,
      this.#machine.engine.name,
      this.#machine.engineVersion,
    ]
    const digest = createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 16)
    return {
      template: image.name,
      vcpus: spec.vcpus,
      memoryMib: spec.memoryMib,
      diskSizeMib: spec.diskSizeMib,
      image,
      key: `${image.name}-${spec.vcpus}x${spec.memoryMib}-${digest}`,
    }
  }

  /** The snapshot of a shape, once there is one that is complete. */
  async find(shape: Shape): Promise<ShapeSnapshot | undefined> {
    this.#lastUse.set(shape.key, performance.now())
    const known = this.#known.get(shape.key)
    if (known !== undefined) return known
    const loaded = await this.#load(shape)
    if (loaded !== undefined) this.#known.set(shape.key, loaded)
    return loaded
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
    const manifest: z.infer<typeof manifestSchema> = {
      format: 1,
      key: shape.key,
      template: shape.template,
      imageDigest: shape.image.digest,
      vcpus: shape.vcpus,
      memoryMib: shape.memoryMib,
      diskSizeMib: shape.diskSizeMib,
      engine: this.#machine.engine.name,
      engineVersion: this.#machine.engineVersion,
      agentVersion,
      secret,
      createdAtMs: Date.now(),
      stateSha256: await sha256(join(draft, 'state')),
    }
    await writeFileAtomic(join(draft, MANIFEST), JSON.stringify(manifest))
    await rm(dir, { recursive: true, force: true })
    await rename(draft, dir)
    undo.move()
    const snapshot = { shape, files: filesIn(dir), secret, agentVersion }
    this.#known.set(shape.key, snapshot)
    this.#lastUse.set(shape.key, performance.now())
    this.#logger.info({ shape: shape.key }, 'shape.saved')
    await this.#evict()
    return snapshot
  }

  /** Forgets a snapshot that turned out not to restore. */
  async discard(shape: Shape): Promise<void> {
    this.#known.delete(shape.key)
    await rm(this.#dir(shape.key), { recursive: true, force: true })
    this.#logger.warn({ shape: shape.key }, 'shape.discarded')
  }

  /** Removes unfinished drafts and what another image or engine version left; only before the first create. */
  async sweep(current: readonly TemplateImage[]): Promise<void> {
    const root = join(this.#machine.pool.path, 'templates')
    await mkdir(root, { recursive: true, mode: 0o711 })
    for (const name of await readdir(root)) {
      if (!(await this.#isCurrent(name, current))) await rm(join(root, name), { recursive: true, force: true })
    }
  }

  /** Keeps the shapes used last; a capsule does not need the snapshot it was cloned from. */
  async #evict(): Promise<void> {
    const root = join(this.#machine.pool.path, 'templates')
    const names = (await readdir(root)).filter((name) => !name.endsWith('.tmp'))
    const byUse = names.sort((a, b) => (this.#lastUse.get(b) ?? 0) - (this.#lastUse.get(a) ?? 0))
    for (const name of byUse.slice(MAX_SHAPES)) {
      this.#known.delete(name)
      await rm(join(root, name), { recursive: true, force: true })
      this.#logger.info({ shape: name }, 'shape.evicted')
    }
  }

  async #isCurrent(name: string, current: readonly TemplateImage[]): Promise<boolean> {
    if (name.endsWith('.tmp')) return false
    const manifest = await this.#manifest(name).catch(() => undefined)
    return (
      manifest !== undefined &&
      manifest.engineVersion === this.#machine.engineVersion &&
      manifest.engine === this.#machine.engine.name &&
      current.some((image) => image.digest === manifest.imageDigest)
    )
  }

  async #load(shape: Shape): Promise<ShapeSnapshot | undefined> {
    const manifest = await this.#manifest(shape.key).catch(() => undefined)
    if (manifest === undefined) return undefined
    const files = filesIn(this.#dir(shape.key))
    const problem = await this.#damage(shape, files, manifest.stateSha256)
    if (problem !== undefined) {
      this.#logger.error({ shape: shape.key, problem }, 'shape.damaged')
      await this.discard(shape)
      return undefined
    }
    return { shape, files, secret: manifest.secret, agentVersion: manifest.agentVersion }
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

  async #manifest(key: string): Promise<z.infer<typeof manifestSchema>> {
    return manifestSchema.parse(JSON.parse(await readFile(join(this.#dir(key), MANIFEST), 'utf8')))
  }

  #dir(key: string): string {
    if (key.includes('/')) throw new AppError('internal', 'A shape key must not contain a slash.')
    return join(this.#machine.pool.path, 'templates', key)
  }
}

function filesIn(dir: string): GuestFiles {
  return { diskPath: join(dir, 'disk.raw'), memoryPath: join(dir, 'mem'), statePath: join(dir, 'state') }
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}
