import { createHash, randomBytes } from 'node:crypto'
import { chown, rm, stat, utimes } from 'node:fs/promises'
import { basename, join } from 'node:path'
import {
  AppError,
  errorText,
  firstFailure,
  isErrno,
  KeyedMutex,
  type Logger,
  type ReachStep,
  UndoStack,
} from '@wrenn/base'
import { formatImageReference, type ImageReference, parseImageReference } from '@wrenn/protocol'
import { z } from 'zod'
import { allocatedBytes } from '../../allocated.js'
import { createLayer } from '../ext4.js'
import { LayerStore, sha256File } from '../store.js'
import {
  needWhole,
  packTemplate,
  readTemplateManifest,
  type TemplateManifest,
  templateTailOf,
} from '../template-archive.js'
import { isCompressed, layoutOfArchive, unpackTemplate } from './archive.js'
import { digestOf, type ImageConfig, imageArchitecture, parseManifest } from './manifest.js'
import { receive } from './receive.js'
import { about, makeScratch, Registry, type RegistryLogin, type RegistryTools } from './registry.js'
import type { RegistryRules } from './rules.js'
import { TemplateDisks } from './template-disks.js'
import { needTools } from './tools.js'
import { type ImageLimits, readLayout, removeUnpacked, type Unpacked, unpackLayout } from './unpack.js'

/** A fetch as a whole; a build may give it less. */
const TIMEOUT_MS = 60 * 60_000
const MIB = 2 ** 20
/** As large as a disk may seem; what it takes is measured. */
const MAX_DISK_BYTES = 4 * 2 ** 40
/** Files of one second, so that equal images are equal files. */
const EPOCH_SECONDS = 1_700_000_000
/** Of a disk, beside its files. */
const DISK_BYTES = 64 * MIB
/** Of the pool: kept free of images. */
const SPARE_BYTES = 1024 * MIB
/** Attributes are not measured: where the usual room is too small for them, the disk is made with more. */
const SLACKS = [0.03, 1] as const
const TOO_SMALL = /allocate|no space|full/i
const PREFIX = 'oci-'
/** Compressed layers are a third of what they hold, more or less. */
const USUAL_RATIO = 3
/** An image that was asked for so lately is about to be used: it does not make way for another. */
const FRESH_MS = 15 * 60_000
const HTTPS_PORT = 443
const HTTP_PORT = 80

const imageIndex = z.object({
  name: z.string(),
  /** Of the layer. */
  digest: z.string(),
  /** Of the image's manifest. */
  manifest: z.string(),
  architecture: z.string(),
  /** By which it came first. */
  reference: z.string(),
  createdAtMs: z.number(),
  config: z.object({
    env: z.array(z.string()).readonly(),
    user: z.string(),
    workingDir: z.string(),
    /** Versions before this one did not write these three. */
    entrypoint: z.array(z.string()).readonly().default([]),
    command: z.array(z.string()).readonly().default([]),
    ports: z.array(z.number()).readonly().default([]),
  }),
  /** Of an archive of a template: its disk lies beside the layers. */
  hasDisk: z.boolean().optional(),
})
type ImageIndex = z.infer<typeof imageIndex>

const digestsOf = ({ digest }: ImageIndex): readonly string[] => [digest]

/** An image of a registry as a base image of this host. */
export interface FetchedImage {
  /** What its templates are made of: where it is from, its manifest's digest and what it is for. */
  readonly name: string
  readonly path: string
  readonly sizeBytes: number
  /** Of its layer, hexadecimal. */
  readonly digest: string
  /** Of its manifest, `sha256:…`. */
  readonly manifest: string
  readonly createdAtMs: number
  readonly config: ImageConfig
  /** Of an archive of a template: what guests of it begin with, instead of an empty disk. */
  readonly diskPath?: string
}

/** A template as an archive has it; of a file that is an image there is none. */
export interface ImportedImage extends FetchedImage {
  readonly template?: TemplateManifest
}

/** Where images come from and what they may take. */
export interface FetchOptions {
  readonly poolDir: string
  readonly logger: Logger
  readonly registry: RegistryTools
  readonly limits: ImageLimits
  /** Of all fetched images together. */
  readonly totalBytes: number
  /** How long an image stays that nothing boots from, after its last use. */
  readonly keepMs: number
  /** Called at each step with its name, where tests break the process off. */
  readonly reach: ReachStep
}

/** Who boots from fetched images. */
export interface ImageUses {
  /** Digests of layers that something needs; `undefined` when that is not known now. */
  layers(): Promise<ReadonlySet<string> | undefined>
  /** Told of each that is there no more. */
  onRemoved(name: string): Promise<void>
}

/** One wish for an image. */
export interface FetchWish {
  readonly reference: string
  readonly login?: RegistryLogin | undefined
  readonly signal: AbortSignal
  /** A sentence for people. */
  readonly onProgress: (sentence: string) => void
}

/** One wish for an image that somebody has as a file. */
export interface ArchiveWish {
  /** As errors call the file. */
  readonly called: string
  /** Of its bytes, hexadecimal. */
  readonly sha256: string
  readonly sizeBytes: number
  /** By what the image is called in it. @default it has one alone */
  readonly image?: string | undefined
  /** Its bytes; not asked for where the image is here. */
  readonly bytes: () => AsyncIterable<Uint8Array>
  readonly signal: AbortSignal
  /** A sentence for people. */
  readonly onProgress: (sentence: string) => void
}

/** Whether a template's name is that of a fetched image. */
export function isFetchedName(name: string): boolean {
  return name.startsWith(PREFIX)
}

/**
 * Images of registries, each a layer beside the ones that are built here, by its registry, its path there and the digest of its manifest. That
 * registry is asked each time, with the asker's own login: what one team may read is not given to another because it lies here, nor to
 * who has the bytes of its manifest and gives them out by a registry of their own. An image of a file is named by the file's bytes, which who asks has.
 */
export class FetchedImages {
  readonly #options: FetchOptions
  readonly #store: LayerStore
  readonly #disks: TemplateDisks
  /** By image: it is fetched once. A registry that is slow holds those alone who ask it for the same. */
  readonly #turns = new KeyedMutex()
  /** Bytes that fetches which run now were promised, by their folders. */
  readonly #promised = new Map<string, number>()
  #uses: ImageUses | undefined

  constructor(options: FetchOptions) {
    this.#options = options
    this.#store = new LayerStore(options.poolDir)
    this.#disks = new TemplateDisks(options.poolDir)
  }

  /** Removes what fetches that were broken off have left; before the first one. */
  async sweep(): Promise<void> {
    await removeUnpacked(this.#scratchRoot())
    await this.#disks.removeOthers(await this.#names())
  }

  /** An archive of a template, as {@link import} takes it. */
  async *pack({ manifest, ...files }: PackOptions): AsyncGenerator<Uint8Array> {
    await makeScratch(this.#scratchRoot())
    const full = { ...manifest, architecture: imageArchitecture(), base: basename(files.basePath) }
    yield* packTemplate({ ...files, manifest: full, scratchRoot: this.#scratchRoot() })
  }

  /** From now on images that nothing boots from make way where the room is short. */
  attach(uses: ImageUses): void {
    this.#uses = uses
  }

  /**
   * Gives the image that a reference means now.
   * @throws AppError `invalid_request` for what is no reference, `image_not_found`, `registry_refused`, `registry_unavailable`, `image_not_usable`,
   * `disk_full`, `timeout`, `invalid_config`
   */
  async fetch(wish: FetchWish): Promise<FetchedImage> {
    const { reference: text, signal: asked } = wish
    const reference = parseImageReference(text)
    if (reference === undefined) {
      throw new AppError(
        'invalid_request',
        `"${text.slice(0, 200)}" is no image reference: [registry[:port]/]name[:tag][@sha256:…].`,
      )
    }
    this.#options.registry.rules.need(reference)
    return await inTime(asked, formatImageReference(reference), (signal) => this.#fetch(reference, { ...wish, signal }))
  }

  /**
   * Gives the image of a file, which comes only where it is not here yet.
   * @throws AppError `invalid_request` for bytes that are not those of the digest, `image_not_found`, `image_not_usable`, `disk_full`, `timeout`,
   * `invalid_config`; what `bytes` throws
   */
  async import(wish: ArchiveWish): Promise<ImportedImage> {
    const { called, sha256, sizeBytes, image } = wish
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new AppError('invalid_request', 'sha256 must be 64 hexadecimal digits.')
    const name = nameOfFile(sha256, image)
    return await inTime(wish.signal, called, async (signal) => {
      await needTools()
      const inTurn = async (): Promise<ImportedImage> => {
        const known = await this.find(name)
        if (known !== undefined) return await this.#asImported(known)
        // One whose files are gone would be waited for by what makes room for it.
        await this.#store.removeIndex(name)
        needImageBytes(sizeBytes, this.#options.limits, 'It has')
        return await this.#open(name, { ...wish, signal })
      }
      return await this.#turns.run(name, inTurn, signal)
    })
  }

  async #open(
    name: string,
    { sha256, sizeBytes, image, bytes, signal, onProgress }: ArchiveWish,
  ): Promise<ImportedImage> {
    const { limits, registry } = this.#options
    const { uid } = registry
    await using undo = new UndoStack()
    const scratchDir = await this.#scratch(undo)
    const file = join(scratchDir, 'archive')
    await this.#promise(scratchDir, sizeBytes, signal)
    onProgress(`Taking the file, ${mib(sizeBytes)} MiB`)
    await receive(bytes(), file, { sha256, sizeBytes, signal })
    const tail = await templateTailOf(file)
    if (tail !== undefined && image !== undefined) {
      throw new AppError('image_not_found', 'it is an archive of a template, of which nothing is chosen by a name.')
    }
    if (tail !== undefined) await needWhole(file, tail, signal)
    await chown(file, uid, uid)
    const ratio = (await isCompressed(file)) ? 1 + 3 * USUAL_RATIO : 4
    await this.#promise(scratchDir, sizeBytes * ratio + DISK_BYTES, signal)
    onProgress('Opening it')
    const architecture = imageArchitecture()
    const tools = { file, scratchDir, uid, limits, signal, timeoutMs: TIMEOUT_MS }
    const source = `file sha256:${sha256}`
    if (tail !== undefined) {
      const folder = await unpackTemplate(tools, MAX_DISK_BYTES)
      return await this.#keepTemplate(folder, { name, source, signal })
    }
    const work = await layoutOfArchive({ ...tools, architecture, wanted: image })
    return await this.#become(work, { name, source, scratchDir, signal, onProgress })
  }

  /** The base image becomes a layer, which others may have; the disk is this template's alone, and root's to read. */
  async #keepTemplate(
    folder: string,
    { name, source, signal }: Pick<Adopted, 'name' | 'source' | 'signal'>,
  ): Promise<ImportedImage> {
    const manifestPath = join(folder, 'wrenn-template.json')
    const template = await readTemplateManifest(manifestPath, imageArchitecture())
    const [base, disk] = [join(folder, 'base.ext4'), join(folder, 'disk.raw')]
    for (const path of [base, disk, manifestPath]) await chown(path, 0, 0)
    if ((await stat(disk)).size !== template.diskSizeMib * MIB)
      throw new AppError('image_not_usable', 'its disk is not as large as it says.')
    // Holes cost a file nothing, and whoever reads it all the time that their bytes would.
    const { size: baseBytes } = await stat(base)
    needImageBytes(baseBytes, this.#options.limits, 'its base image has')
    if ((await sha256File(base, signal)) !== template.base)
      throw new AppError('image_not_usable', 'its base image does not have the digest that it says.')
    await this.#needWithinTotal(baseBytes + allocatedBytes(await stat(disk)), signal)
    await using undo = new UndoStack()
    await this.#disks.keep(name, { disk, manifest: manifestPath }, undo)
    const { user, cwd, envs } = template.setup
    const env = Object.entries(envs).map(([key, value]) => `${key}=${value}`)
    const config = { env, user, workingDir: cwd, entrypoint: [], command: [], ports: [] }
    const entry = await this.#adopt(base, { name, manifest: source, source, config, signal, hasDisk: true })
    undo.move()
    return await this.#asImported(await this.#describe(entry))
  }

  async #asImported(image: FetchedImage): Promise<ImportedImage> {
    if (image.diskPath === undefined) return image
    return { ...image, template: await this.#disks.manifest(image.name) }
  }

  /** A folder for one image on its way, which goes with the stack. */
  async #scratch(undo: UndoStack): Promise<string> {
    const scratchDir = join(this.#scratchRoot(), randomBytes(6).toString('hex'))
    await makeScratch(this.#scratchRoot())
    await makeScratch(scratchDir)
    await undo.defer(() => removeUnpacked(scratchDir))
    await undo.defer(() => this.#promised.delete(scratchDir))
    this.#options.reach('image:begun')
    return scratchDir
  }

  async #fetch(reference: ImageReference, { login, signal, onProgress }: FetchWish): Promise<FetchedImage> {
    const { registry: tools } = this.#options
    await needTools()
    await needReachable(tools.rules, reference)
    await using undo = new UndoStack()
    const scratchDir = await this.#scratch(undo)
    const registry = new Registry(tools, { reference, login, scratchDir, signal })
    onProgress(`Asking ${reference.registry} for ${formatImageReference(reference)}`)
    const { digest, layerBytes } = await this.#resolve(registry, reference)
    const name = nameOf(reference, digest)
    const inTurn = async (): Promise<FetchedImage> => {
      const known = await this.find(name)
      if (known === undefined)
        return await this.#make({ name, digest, layerBytes, registry, reference, scratchDir, signal, onProgress })
      onProgress(`${digest} is here already`)
      return known
    }
    return await this.#turns.run(name, inTurn, signal)
  }

  async #resolve(
    registry: Registry,
    reference: ImageReference,
  ): Promise<{ readonly digest: string; readonly layerBytes: number }> {
    const architecture = imageArchitecture()
    const raw = await registry.manifest()
    const first = parseManifest(raw, architecture)
    if (first.kind === 'image') return { digest: needDigest(raw, reference.digest), layerBytes: first.layerBytes }
    needDigest(raw, reference.digest)
    if (first.ours === undefined) {
      const offered = first.offered.join(', ') || 'no machine'
      throw new AppError('image_not_usable', `It is for ${offered}, and this host is linux/${architecture}.`)
    }
    const ours = await registry.manifest(first.ours)
    needDigest(ours, first.ours)
    const second = parseManifest(ours, architecture)
    if (second.kind !== 'image') throw new AppError('image_not_usable', 'Its index leads to another index.')
    return { digest: first.ours, layerBytes: second.layerBytes }
  }

  async #make({
    name,
    digest,
    layerBytes,
    registry,
    reference,
    scratchDir,
    signal,
    onProgress,
  }: Make): Promise<FetchedImage> {
    const { limits } = this.#options
    needImageBytes(layerBytes, limits, 'Its layers have')
    await this.#promise(scratchDir, layerBytes * (1 + 2 * USUAL_RATIO) + DISK_BYTES, signal)
    const work = join(scratchDir, 'fetch')
    onProgress(`Fetching ${digest}, ${mib(layerBytes)} MiB`)
    const onBytes = (received: number): void => onProgress(`Fetched ${mib(received)} of ${mib(layerBytes)} MiB`)
    await registry.copy(digest, work, { layerBytes, limits, timeoutMs: TIMEOUT_MS, onBytes })
    const source = formatImageReference(reference)
    return await this.#become(work, { name, digest, source, scratchDir, signal, onProgress })
  }

  /** Makes the image of `<work>/layout` a layer; `work` is gone afterwards. */
  async #become(work: string, { name, digest, source, scratchDir, signal, onProgress }: Become): Promise<FetchedImage> {
    const { limits, logger, reach } = this.#options
    const startedAtMs = Date.now()
    const layout = join(work, 'layout')
    const { config, manifest } = await readLayout(layout, imageArchitecture())
    onProgress('Unpacking it')
    const unpacked = await unpackLayout(layout, join(scratchDir, 'root'), limits, { signal, timeoutMs: TIMEOUT_MS })
    await removeUnpacked(work)
    reach('image:unpacked')
    onProgress('Packing it as a disk')
    await this.#needWithinTotal(unpacked.bytes, signal)
    const file = await this.#pack(unpacked, scratchDir, signal)
    const entry = await this.#adopt(file, { name, manifest: digest ?? manifest, source, config, signal })
    reach('image:made')
    logger.info({ image: name, reference: source, ms: Date.now() - startedAtMs }, 'images.fetched')
    return await this.#describe(entry)
  }

  /**
   * Promises a fetch room of the pool, instead of what it was promised before. What the others were promised is not free, and images that
   * nothing boots from make way.
   * @throws AppError `disk_full`
   */
  async #promise(scratchDir: string, bytes: number, signal: AbortSignal): Promise<void> {
    this.#promised.set(scratchDir, bytes)
    for (;;) {
      const promised = [...this.#promised.values()].reduce((sum, one) => sum + one, 0)
      try {
        return await this.#store.requireSpace(promised + SPARE_BYTES, 'images')
      } catch (error) {
        if (!AppError.is(error, 'disk_full') || !(await this.#removeOldest(signal))) throw error
      }
    }
  }

  /** @throws AppError `disk_full` when all images would be too large with one more, and those that are here are needed */
  async #needWithinTotal(bytes: number, signal: AbortSignal): Promise<void> {
    const { totalBytes } = this.#options
    if (bytes > totalBytes) {
      const message = `It takes ${mib(bytes)} MiB, and all fetched images may take ${mib(totalBytes)} MiB (WRENN_IMAGES_TOTAL_MIB).`
      throw new AppError('disk_full', message)
    }
    for (;;) {
      const images = await this.list()
      const layers = new Map(images.map(({ digest, sizeBytes }) => [digest, sizeBytes]))
      const disks = await Promise.all(images.map(({ name }) => this.#disks.bytes(name)))
      if ([...layers.values(), ...disks].reduce((sum, size) => sum + size, bytes) <= totalBytes) return
      if (await this.#removeOldest(signal)) continue
      const message = `Fetched images may take ${mib(totalBytes)} MiB (WRENN_IMAGES_TOTAL_MIB), and those that are here are needed.`
      throw new AppError('disk_full', message)
    }
  }

  /** Removes the image that has gone unused for longest. @returns whether there was one that may go */
  async #removeOldest(signal: AbortSignal): Promise<boolean> {
    const layers = await this.#uses?.layers()
    if (layers === undefined) return false
    const names = await this.#names()
    const byAge = await Promise.all(names.map(async (name) => ({ name, usedAtMs: await this.#usedAtMs(name) })))
    for (const { name } of byAge.sort((a, b) => a.usedAtMs - b.usedAtMs)) {
      if (await this.#removeUnused(name, FRESH_MS, (digest) => layers.has(digest), signal)) {
        this.#options.logger.info({ image: name }, 'images.made_way')
        await this.#uses?.onRemoved(name)
        return true
      }
    }
    return false
  }

  /** @returns the disk's file */
  async #pack({ rootfs, bytes }: Unpacked, scratchDir: string, signal: AbortSignal): Promise<string> {
    const file = join(scratchDir, 'base.ext4')
    let cause: AppError | undefined
    for (const slack of SLACKS) {
      await this.#promise(scratchDir, bytes * (1 + slack) + DISK_BYTES, signal)
      try {
        await createLayer(rootfs, file, { role: 'base', epochSeconds: EPOCH_SECONDS, slack, signal })
        return file
      } catch (error) {
        signal.throwIfAborted()
        if (!AppError.is(error, 'image_build_failed', 'timeout', 'engine_failure')) throw error
        cause = error
        await rm(file, { force: true })
        if (!TOO_SMALL.test(error.message)) break
      }
    }
    await this.#store.requireSpace(SPARE_BYTES / 2, 'images')
    throw new AppError('image_not_usable', 'No disk can be made of it.', { cause })
  }

  /** Whoever removes layers that have no name is not there meanwhile. */
  async #adopt(file: string, { name, manifest, source, config, signal, hasDisk }: Adopted): Promise<ImageIndex> {
    await using _lease = await this.#store.lease({ signal })
    const { digest } = await this.#store.adopt(file, signal)
    const entry = {
      name,
      digest,
      manifest,
      architecture: imageArchitecture(),
      reference: source,
      createdAtMs: Date.now(),
      config,
      ...(hasDisk === true ? { hasDisk } : {}),
    }
    await this.#store.writeIndex(name, entry)
    return entry
  }

  /** The image of that name, which counts as used from now on. */
  async find(name: string): Promise<FetchedImage | undefined> {
    const entry = await this.#store.readIndex(name, imageIndex, digestsOf)
    if (entry === undefined || (entry.hasDisk === true && !(await this.#disks.isWhole(name)))) return undefined
    await this.#touch(name)
    return await this.#describe(entry)
  }

  /** All of them. */
  async list(): Promise<readonly FetchedImage[]> {
    const entries = await Promise.all(
      (await this.#names()).map((name) => this.#store.readIndex(name, imageIndex, digestsOf)),
    )
    const found = await Promise.all(
      entries
        .filter((entry) => entry !== undefined)
        .map((entry) =>
          this.#describe(entry).catch((error: unknown) => {
            if (isErrno(error, 'ENOENT')) return undefined // it has made way meanwhile
            throw error
          }),
        ),
    )
    return found.filter((image) => image !== undefined)
  }

  /** Removes those that nothing boots from and nobody has used for long. @returns their names */
  async prune(inUse: (digest: string) => boolean): Promise<readonly string[]> {
    const removed: string[] = []
    for (const name of await this.#names())
      if (await this.#removeUnused(name, this.#options.keepMs, inUse)) removed.push(name)
    return removed
  }

  async #removeUnused(
    name: string,
    keepMs: number,
    inUse: (digest: string) => boolean,
    signal?: AbortSignal,
  ): Promise<boolean> {
    const remove = async (): Promise<boolean> => {
      const entry = await this.#store.readIndex(name, imageIndex, digestsOf)
      const isFresh = Date.now() - (await this.#usedAtMs(name)) < keepMs
      // A template that was made of an archive has its disk, and needs the base image alone.
      const isNeeded = entry !== undefined && inUse(entry.digest)
      if (entry !== undefined && (isFresh || (isNeeded && entry.hasDisk !== true))) return false
      await using _lease = await this.#store.lease({ ...(signal && { signal }) })
      await this.#store.removeIndex(name)
      await this.#disks.remove(name)
      if (entry !== undefined && !isNeeded && !(await this.#store.referencedDigests()).has(entry.digest))
        await this.#store.removeLayer(entry.digest)
      return true
    }
    return await this.#turns.run(name, remove, signal)
  }

  /** Long ago for what is there no more. */
  async #usedAtMs(name: string): Promise<number> {
    return (await stat(this.#indexPath(name)).catch(() => undefined))?.mtimeMs ?? 0
  }

  async #names(): Promise<readonly string[]> {
    return (await this.#store.indexNames()).filter(isFetchedName)
  }

  async #touch(name: string): Promise<void> {
    const now = new Date()
    await utimes(this.#indexPath(name), now, now)
  }

  async #describe({ name, digest, manifest, createdAtMs, config, hasDisk }: ImageIndex): Promise<FetchedImage> {
    const path = this.#store.layerPath(digest)
    const image = { name, path, sizeBytes: (await stat(path)).size, digest, manifest, createdAtMs, config }
    return hasDisk === true ? { ...image, diskPath: this.#disks.path(name) } : image
  }

  #indexPath(name: string): string {
    return join(this.#options.poolDir, 'layers', 'index', `${name}.json`)
  }

  #scratchRoot(): string {
    return join(this.#options.poolDir, 'layers', 'fetches')
  }
}

interface Make {
  readonly name: string
  readonly digest: string
  readonly layerBytes: number
  readonly registry: Registry
  readonly reference: ImageReference
  readonly scratchDir: string
  readonly signal: AbortSignal
  readonly onProgress: (sentence: string) => void
}

interface Become {
  readonly name: string
  /** Of its manifest where it came from. @default as it is in the layout */
  readonly digest?: string
  /** What is kept of where it is from. */
  readonly source: string
  readonly scratchDir: string
  readonly signal: AbortSignal
  readonly onProgress: (sentence: string) => void
}

interface Adopted {
  readonly name: string
  readonly manifest: string
  readonly source: string
  readonly hasDisk?: boolean
  readonly config: ImageConfig
  readonly signal: AbortSignal
}

interface PackOptions {
  readonly manifest: Omit<TemplateManifest, 'format' | 'version' | 'architecture' | 'base'>
  /** A layer: its name is its digest. */
  readonly basePath: string
  /** It must not change meanwhile. */
  readonly diskPath: string
  readonly signal: AbortSignal
}

/** Where an image is from counts as much as what it is: each is given only to who has been let read it there. */
function nameOf({ registry, path }: ImageReference, digest: string): string {
  const key = createHash('sha256').update(`${registry}/${path}@${digest}`).digest('hex')
  return `${PREFIX}${key}-${imageArchitecture()}`
}

/** Who has all bytes of a file has been given its images by nobody. */
function nameOfFile(sha256: string, image: string | undefined): string {
  const key = createHash('sha256')
    .update(`file ${sha256} ${image ?? ''}`)
    .digest('hex')
  return `${PREFIX}${key}-${imageArchitecture()}`
}

function needImageBytes(bytes: number, { maxBytes }: ImageLimits, what: string): void {
  if (bytes <= maxBytes) return
  throw new AppError('image_not_usable', `${what} ${mib(bytes)} MiB, which is more than WRENN_IMAGE_MAX_MIB.`)
}

/** Runs a fetch as long as one may take; its errors begin with what people call the image. */
async function inTime<T>(asked: AbortSignal, called: string, task: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const late = AbortSignal.timeout(TIMEOUT_MS)
  try {
    return await task(AbortSignal.any([asked, late]))
  } catch (thrown) {
    asked.throwIfAborted()
    const error = firstFailure(thrown)
    if (late.aborted) throw about(called, new AppError('timeout', `it took longer than ${TIMEOUT_MS / 60_000} min.`))
    throw error instanceof AppError ? about(called, withoutHost(error)) : error
  }
}

/** What fails of the host's own tools says how the host is made. */
function withoutHost(error: AppError): AppError {
  if (!AppError.is(error, 'engine_failure', 'image_build_failed', 'timeout')) return error
  return new AppError(error.code, 'the host could not prepare it.', { cause: error })
}

/** Told before anything is started; the same holds for each connection later. */
async function needReachable(rules: RegistryRules, { registry }: ImageReference): Promise<void> {
  const [host = '', port = rules.isPlain(registry) ? HTTP_PORT : HTTPS_PORT] = registry.split(':')
  try {
    await rules.address(host, Number(port))
  } catch (error) {
    if (error instanceof AppError) throw error
    throw new AppError('registry_unavailable', `its registry cannot be found: ${errorText(error)}`, { cause: error })
  }
}

/** The digest of what a registry gave; it must be the one that was asked for, where one was. */
function needDigest(raw: string, expected: string | undefined): string {
  const digest = digestOf(raw)
  if (expected === undefined || digest === expected) return digest
  throw new AppError('image_not_usable', `The registry gave another manifest than ${expected}.`)
}

function mib(bytes: number): number {
  return Math.ceil(bytes / MIB)
}
