import { randomBytes } from 'node:crypto'
import { rm, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, KeyedMutex, type Logger, UndoStack } from '@wrenn/base'
import { formatImageReference, type ImageReference, parseImageReference } from '@wrenn/protocol'
import { z } from 'zod'
import { createLayer } from '../ext4.js'
import { LayerStore } from '../store.js'
import { digestOf, type ImageConfig, imageArchitecture, parseManifest } from './manifest.js'
import { about, makeScratch, Registry, type RegistryLogin, type RegistryTools } from './registry.js'
import type { RegistryRules } from './rules.js'
import { type ImageLimits, readLayout, removeUnpacked, unpackLayout } from './unpack.js'

/** A fetch as a whole; a build may give it less. */
const TIMEOUT_MS = 60 * 60_000
const MIB = 2 ** 20
/** Files of one second, so that equal images are equal files. */
const EPOCH_SECONDS = 1_700_000_000
const LARGE_SLACK = 1
const PREFIX = 'oci-'
/** Compressed layers are a third of what they hold, more or less. */
const USUAL_RATIO = 3

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
    entrypoint: z.array(z.string()).readonly(),
    cmd: z.array(z.string()).readonly(),
  }),
})
type ImageIndex = z.infer<typeof imageIndex>

const digestsOf = ({ digest }: ImageIndex): readonly string[] => [digest]

/** An image of a registry as a base image of this host. */
export interface FetchedImage {
  /** What its templates are made of: its manifest's digest and what it is for. */
  readonly name: string
  readonly path: string
  readonly sizeBytes: number
  /** Of its layer, hexadecimal. */
  readonly digest: string
  /** Of its manifest, `sha256:…`. */
  readonly manifest: string
  readonly createdAtMs: number
  readonly config: ImageConfig
}

/** Where images come from and what they may take. */
export interface FetchOptions {
  readonly poolDir: string
  readonly logger: Logger
  readonly registry: RegistryTools
  readonly limits: ImageLimits
  /** How long an image stays that nothing boots from, after its last use. */
  readonly keepMs: number
}

/** One wish for an image. */
export interface FetchWish {
  readonly reference: string
  readonly login?: RegistryLogin | undefined
  readonly signal: AbortSignal
  /** A sentence for people. */
  readonly onProgress: (sentence: string) => void
}

/** Whether a template's name is that of a fetched image. */
export function isFetchedName(name: string): boolean {
  return name.startsWith(PREFIX)
}

/**
 * Images of registries, each a layer beside the ones that are built here, by the digest of its manifest. The registry is asked each time, with the
 * asker's own login: what one team may read is not given to another because it lies here.
 */
export class FetchedImages {
  readonly #options: FetchOptions
  readonly #store: LayerStore
  /** By image: it is fetched once. */
  readonly #turns = new KeyedMutex()

  constructor(options: FetchOptions) {
    this.#options = options
    this.#store = new LayerStore(options.poolDir)
  }

  /** Removes what fetches that were broken off have left; before the first one. */
  async sweep(): Promise<void> {
    await removeUnpacked(this.#scratchRoot())
  }

  /**
   * Gives the image that a reference means now.
   * @throws AppError `invalid_request` for what is no reference, `image_not_found`, `registry_refused`, `registry_unavailable`, `image_not_usable`,
   * `disk_full`, `timeout`
   */
  async fetch({ reference: text, login, signal: asked, onProgress }: FetchWish): Promise<FetchedImage> {
    const reference = parseImageReference(text)
    if (reference === undefined) {
      throw new AppError(
        'invalid_request',
        `"${text.slice(0, 200)}" is no image reference: [registry[:port]/]name[:tag][@sha256:…].`,
      )
    }
    const { registry: tools } = this.#options
    tools.rules.need(reference)
    await needReachable(tools.rules, reference)
    const late = AbortSignal.timeout(TIMEOUT_MS)
    const signal = AbortSignal.any([asked, late])
    const scratchDir = join(this.#scratchRoot(), randomBytes(6).toString('hex'))
    await makeScratch(this.#scratchRoot())
    await using undo = new UndoStack()
    await makeScratch(scratchDir)
    await undo.defer(() => removeUnpacked(scratchDir))
    const registry = new Registry(tools, { reference, login, scratchDir, signal })
    try {
      onProgress(`Asking ${reference.registry} for ${formatImageReference(reference)}`)
      const { digest, layerBytes } = await this.#resolve(registry, reference)
      const name = `${PREFIX}${digest.slice('sha256:'.length)}-${imageArchitecture()}`
      return await this.#turns.run(name, async () => {
        signal.throwIfAborted()
        const known = await this.find(name)
        if (known !== undefined) {
          onProgress(`${digest} is here already`)
          return known
        }
        return await this.#make({ name, digest, layerBytes, registry, reference, scratchDir, signal, onProgress })
      })
    } catch (error) {
      asked.throwIfAborted()
      if (late.aborted)
        throw new AppError(
          'timeout',
          `${formatImageReference(reference)}: it took longer than ${TIMEOUT_MS / 60_000} min.`,
        )
      if (AppError.is(error, 'image_not_usable') && !error.message.startsWith(reference.registry))
        throw about(reference, error)
      throw error
    }
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
    const { limits, logger } = this.#options
    const startedAtMs = Date.now()
    if (layerBytes > limits.maxBytes) {
      throw new AppError(
        'image_not_usable',
        `Its layers have ${mib(layerBytes)} MiB, which is more than WRENN_IMAGE_MAX_MIB.`,
      )
    }
    await this.#store.requireSpace(
      layerBytes * (1 + 2 * USUAL_RATIO) + 64 * MIB,
      `the image ${formatImageReference(reference)}`,
    )
    const work = join(scratchDir, 'fetch')
    onProgress(`Fetching ${digest}, ${mib(layerBytes)} MiB`)
    const onBytes = (received: number): void => onProgress(`Fetched ${mib(received)} of ${mib(layerBytes)} MiB`)
    await registry.copy(digest, work, TIMEOUT_MS, onBytes)
    const layout = join(work, 'layout')
    const config = await readLayout(layout, imageArchitecture())
    onProgress('Unpacking it')
    const rootfs = await unpackLayout(layout, join(scratchDir, 'root'), limits, { signal, timeoutMs: TIMEOUT_MS })
    await removeUnpacked(work)
    onProgress('Packing it as a disk')
    const file = join(scratchDir, 'base.ext4')
    await pack(rootfs, file, signal)
    const entry = await this.#adopt(file, { name, manifest: digest, reference, config, signal })
    logger.info({ image: name, reference: entry.reference, ms: Date.now() - startedAtMs }, 'images.fetched')
    return await this.#describe(entry)
  }

  /** Whoever removes layers that have no name is not there meanwhile. */
  async #adopt(file: string, { name, manifest, reference, config, signal }: Adopted): Promise<ImageIndex> {
    await using _lease = await this.#store.lease({ signal })
    const { digest } = await this.#store.adopt(file)
    const text = formatImageReference(reference)
    const entry = {
      name,
      digest,
      manifest,
      architecture: imageArchitecture(),
      reference: text,
      createdAtMs: Date.now(),
      config,
    }
    await this.#store.writeIndex(name, entry)
    return entry
  }

  /** The image of that name, which counts as used from now on. */
  async find(name: string): Promise<FetchedImage | undefined> {
    const entry = await this.#store.readIndex(name, imageIndex, digestsOf)
    if (entry === undefined) return undefined
    await this.#touch(name)
    return await this.#describe(entry)
  }

  /** All of them. */
  async list(): Promise<readonly FetchedImage[]> {
    const entries = await Promise.all(
      (await this.#names()).map((name) => this.#store.readIndex(name, imageIndex, digestsOf)),
    )
    return await Promise.all(entries.filter((entry) => entry !== undefined).map((entry) => this.#describe(entry)))
  }

  /** Removes those that nothing boots from and nobody has used for long. @returns their names */
  async prune(inUse: (digest: string) => boolean): Promise<readonly string[]> {
    const removed: string[] = []
    for (const name of await this.#names()) {
      await this.#turns.run(name, async () => {
        const { mtimeMs } = await stat(this.#indexPath(name))
        const entry = await this.#store.readIndex(name, imageIndex, digestsOf)
        if (entry !== undefined && (inUse(entry.digest) || Date.now() - mtimeMs < this.#options.keepMs)) return
        await using _lease = await this.#store.lease({})
        await this.#store.removeIndex(name)
        if (entry !== undefined && !(await this.#store.referencedDigests()).has(entry.digest))
          await this.#store.removeLayer(entry.digest)
        removed.push(name)
      })
    }
    return removed
  }

  async #names(): Promise<readonly string[]> {
    return (await this.#store.indexNames()).filter(isFetchedName)
  }

  async #touch(name: string): Promise<void> {
    const now = new Date()
    await utimes(this.#indexPath(name), now, now)
  }

  async #describe({ name, digest, manifest, createdAtMs, config }: ImageIndex): Promise<FetchedImage> {
    const path = this.#store.layerPath(digest)
    return { name, path, sizeBytes: (await stat(path)).size, digest, manifest, createdAtMs, config }
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

interface Adopted {
  readonly name: string
  readonly manifest: string
  readonly reference: ImageReference
  readonly config: ImageConfig
  readonly signal: AbortSignal
}

/** Attributes are not measured: where the usual room is too small for them, it is made with more. */
async function pack(rootfs: string, file: string, signal: AbortSignal): Promise<void> {
  const layer = { role: 'base', epochSeconds: EPOCH_SECONDS, signal } as const
  try {
    await createLayer(rootfs, file, layer)
  } catch (error) {
    if (!AppError.is(error, 'image_build_failed') || !/allocate|no space|full/i.test(error.message)) throw error
    await rm(file, { force: true })
    await createLayer(rootfs, file, { ...layer, slack: LARGE_SLACK })
  }
}

/** Told before anything is started; the same holds for each connection later. */
async function needReachable(rules: RegistryRules, reference: ImageReference): Promise<void> {
  try {
    await rules.address(reference.registry.replace(/:\d+$/, ''))
  } catch (error) {
    if (error instanceof AppError) throw about(reference, error)
    const message = `its registry cannot be found: ${errorText(error)}`
    throw new AppError('registry_unavailable', `${formatImageReference(reference)}: ${message}`, { cause: error })
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
