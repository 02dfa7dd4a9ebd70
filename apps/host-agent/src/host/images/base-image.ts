import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '@wrenn/base'
import { z } from 'zod'
import { createLayer } from './ext4.js'
import { type ImageManifest, readManifest, readManifests } from './manifest.js'
import type { ImageStoreOptions } from './progress.js'
import { buildRootfs } from './rootfs.js'
import { LayerStore } from './store.js'

/** A read-only root file system, the lower layer of every capsule made from it. */
export interface BaseImage {
  readonly name: string
  readonly aliases: readonly string[]
  readonly path: string
  readonly sizeBytes: number
  /** sha256 of the file. */
  readonly digest: string
  readonly createdAtMs: number
  /** Every installed package with its version. */
  readonly packages: Readonly<Record<string, string>>
  /** A shell line that succeeds in the guest when what the image runs at its boot is ready. */
  readonly ready?: string | undefined
}

/** An image that can be had, built or not. */
export interface OfferedImage extends Pick<BaseImage, 'name' | 'aliases'> {
  /** Of a capsule that does not ask for a size; absent: the platform's own. */
  readonly vcpus?: number | undefined
  readonly memoryMib?: number | undefined
  readonly built: BaseImage | undefined
}

/** Whether an image is built although there is one. */
export interface BuildOptions extends ImageStoreOptions {
  /** Build also when the manifest's image exists, to take up new package versions. @default false */
  readonly rebuild?: boolean
}

const RECIPE = 2
/** Root file system, its ext4 file and what apt keeps meanwhile, where the manifest does not say. */
const BUILD_SPACE_MIB = 1_500

const imageIndex = z.object({
  name: z.string(),
  aliases: z.array(z.string()),
  /** Digest of the manifest it was built from. */
  inputs: z.string(),
  digest: z.string(),
  createdAtMs: z.number(),
  packages: z.record(z.string(), z.string()),
  ready: z.string().optional(),
})
type ImageIndex = z.infer<typeof imageIndex>

const digestsOf = (entry: ImageIndex): readonly string[] => [entry.digest]
const indexName = (image: string): string => `image-${image}`

/** The image of that name or alias as built from its manifest of today; built first when there is none. */
export async function ensureImage(nameOrAlias: string, options: ImageStoreOptions): Promise<BaseImage> {
  return await buildImage(nameOrAlias, options)
}

/**
 * Builds an image from `images/<name>.json` with Debian's packages of today. An image that exists for the same manifest is
 * kept unless `rebuild` is set; the old file stays until nothing uses it (`pruneLayers`).
 */
export async function buildImage(nameOrAlias: string, options: BuildOptions): Promise<BaseImage> {
  const store = new LayerStore(options.poolDir)
  const manifest = await readManifest(options.imagesDir, nameOrAlias)
  const inputs = createHash('sha256')
    .update(JSON.stringify([RECIPE, manifest]))
    .digest('hex')
  const current = async (): Promise<ImageIndex | undefined> => {
    const entry = await store.readIndex(indexName(manifest.name), imageIndex, digestsOf)
    return entry?.inputs === inputs ? entry : undefined
  }
  const found = options.rebuild ? undefined : await current()
  if (found !== undefined) return await toImage(store, found)
  await using lease = await store.lease(options)
  const meanwhile = options.rebuild ? undefined : await current()
  if (meanwhile !== undefined) return await toImage(store, meanwhile)
  await store.requireSpace((manifest.buildSpaceMib ?? BUILD_SPACE_MIB) * 1_048_576, `the image ${manifest.name}`)
  const entry = await build(store, lease.scratchDir, manifest, inputs, options)
  await store.writeIndex(indexName(manifest.name), entry)
  return await toImage(store, entry)
}

async function build(
  store: LayerStore,
  scratchDir: string,
  manifest: ImageManifest,
  inputs: string,
  options: ImageStoreOptions,
): Promise<ImageIndex> {
  const startedAtMs = Date.now()
  const folder = join(scratchDir, 'rootfs')
  const rootfs = await buildRootfs(folder, scratchDir, manifest, options)
  options.onProgress?.({ step: 'image', detail: `Packing ${manifest.name}`, fraction: 0.85 })
  const file = join(scratchDir, 'base.ext4')
  await createLayer(folder, file, { role: 'base', epochSeconds: rootfs.epochSeconds, signal: options.signal })
  const layer = await store.adopt(file)
  options.onProgress?.({ step: 'done', detail: `${manifest.name} is ready`, fraction: 1 })
  options.logger.info(
    { image: manifest.name, digest: layer.digest, sizeBytes: layer.sizeBytes, ms: Date.now() - startedAtMs },
    'images.image_built',
  )
  return {
    name: manifest.name,
    aliases: manifest.aliases,
    inputs,
    digest: layer.digest,
    createdAtMs: Date.now(),
    packages: rootfs.packages,
    ...(manifest.ready === undefined ? {} : { ready: manifest.ready }),
  }
}

async function toImage(store: LayerStore, entry: ImageIndex): Promise<BaseImage> {
  const { name, aliases, digest, createdAtMs, packages, ready } = entry
  const path = store.layerPath(digest)
  return { name, aliases, path, sizeBytes: (await stat(path)).size, digest, createdAtMs, packages, ready }
}

/** Every image that is built, sorted by name. */
export async function listImages(poolDir: string): Promise<readonly BaseImage[]> {
  const store = new LayerStore(poolDir)
  const names = (await store.indexNames()).filter((name) => name.startsWith('image-')).sort()
  const entries = await Promise.all(names.map((name) => store.readIndex(name, imageIndex, digestsOf)))
  return await Promise.all(entries.filter((entry) => entry !== undefined).map((entry) => toImage(store, entry)))
}

/** Every image that has a manifest, by name. */
export async function offeredImages({
  poolDir,
  imagesDir,
}: Pick<ImageStoreOptions, 'poolDir' | 'imagesDir'>): Promise<readonly OfferedImage[]> {
  const [manifests, built] = await Promise.all([readManifests(imagesDir), listImages(poolDir)])
  return manifests.map(({ name, aliases, vcpus, memoryMib }) => {
    return { name, aliases, vcpus, memoryMib, built: built.find((image) => image.name === name) }
  })
}

/** What must not be in use for an image to go. */
export interface RemoveOptions extends Pick<ImageStoreOptions, 'poolDir' | 'signal' | 'onProgress'> {
  /** Whether a capsule or template still has this layer. */
  readonly inUse: (digest: string) => boolean
}

/**
 * Removes a built image.
 * @returns false when there is none of that name
 * @throws AppError `invalid_state` while it is in use
 */
export async function removeImage(nameOrAlias: string, options: RemoveOptions): Promise<boolean> {
  const store = new LayerStore(options.poolDir)
  const known = await listImages(options.poolDir)
  const image = known.find(({ name, aliases }) => name === nameOrAlias || aliases.includes(nameOrAlias))
  if (image === undefined) return false
  await using _lease = await store.lease(options)
  if (options.inUse(image.digest)) {
    throw new AppError(
      'invalid_state',
      `The image ${image.name} is in use; destroy its capsules and templates before removing it.`,
    )
  }
  await store.removeIndex(indexName(image.name))
  if (!(await store.referencedDigests()).has(image.digest)) await store.removeLayer(image.digest)
  return true
}
