import { createHash } from 'node:crypto'
import { AppError } from '@wrenn/base'
import { z } from 'zod'

/** What `skopeo inspect --raw` may print; registries take no more than 4 MiB (OCI distribution spec, "Pushing Manifests"). */
export const MANIFEST_BYTES = 4 * 1_048_576

const descriptor = z.object({
  mediaType: z.string().default(''),
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  size: z.int().min(0),
})
const platform = z.object({ os: z.string(), architecture: z.string(), variant: z.string().optional() })
const index = z.object({ manifests: z.array(descriptor.extend({ platform: platform.optional() })).max(1000) })
const manifest = z.object({ schemaVersion: z.literal(2), config: descriptor, layers: z.array(descriptor).max(1000) })
const strings = z
  .array(z.string())
  .nullish()
  .transform((value) => value ?? [])
const word = z
  .string()
  .nullish()
  .transform((value) => value ?? '')
const config = z.object({
  architecture: z.string(),
  os: z.string(),
  config: z.object({ Env: strings, User: word, WorkingDir: word, Entrypoint: strings, Cmd: strings }).nullish(),
})

/** How a container of an image would be run. */
export interface ImageConfig {
  readonly env: readonly string[]
  readonly user: string
  readonly workingDir: string
  readonly entrypoint: readonly string[]
  readonly cmd: readonly string[]
}

/** An index says which manifest is for which machine. */
export type Manifest =
  | { readonly kind: 'index'; readonly ours: string | undefined; readonly offered: readonly string[] }
  | { readonly kind: 'image'; readonly layerBytes: number; readonly layers: number; readonly config: string }

/** What Go calls this machine. */
export function imageArchitecture(arch: string = process.arch): string {
  return arch === 'x64' ? 'amd64' : arch
}

/** @throws AppError `image_not_usable` for what is neither an index nor a manifest of today */
export function parseManifest(raw: string, architecture: string): Manifest {
  const json = parseJson(raw)
  const list = index.safeParse(json)
  if (list.success) {
    const linux = list.data.manifests.filter(({ platform }) => platform?.os === 'linux')
    const ours = linux.find(({ platform }) => platform?.architecture === architecture)?.digest
    const offered = list.data.manifests.map(({ platform }) => `${platform?.os ?? '?'}/${platform?.architecture ?? '?'}`)
    return { kind: 'index', ours, offered: [...new Set(offered)].filter((name) => !name.includes('unknown')) }
  }
  const image = manifest.safeParse(json)
  if (!image.success) {
    throw new AppError('image_not_usable', 'Its manifest is neither of Docker, version 2 schema 2, nor of OCI.')
  }
  const { layers } = image.data
  const layerBytes = layers.reduce((sum, { size }) => sum + size, 0)
  return { kind: 'image', layerBytes, layers: layers.length, config: image.data.config.digest }
}

/** What an image's config says. @throws AppError `image_not_usable` when it is none, or is for another machine */
export function parseImageConfig(raw: string, architecture: string): ImageConfig {
  const parsed = config.safeParse(parseJson(raw))
  if (!parsed.success) throw new AppError('image_not_usable', 'Its config is none.')
  const { os, architecture: made, config: run } = parsed.data
  if (os !== 'linux' || made !== architecture) {
    throw new AppError('image_not_usable', `It is for ${os}/${made}, and this host is linux/${architecture}.`)
  }
  return {
    env: run?.Env ?? [],
    user: run?.User ?? '',
    workingDir: run?.WorkingDir ?? '',
    entrypoint: run?.Entrypoint ?? [],
    cmd: run?.Cmd ?? [],
  }
}

/** `sha256:…` of its bytes. */
export function digestOf(raw: string): string {
  return `sha256:${createHash('sha256').update(raw).digest('hex')}`
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
