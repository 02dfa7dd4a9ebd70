import { createHash } from 'node:crypto'
import { AppError } from '@wrenn/base'
import { z } from 'zod'

/** What `skopeo inspect --raw` may print; registries take no more than 4 MiB (OCI distribution spec, "Pushing Manifests"). */
export const MANIFEST_BYTES = 4 * 1_048_576

/** Entries of a list: of layers, of manifests, of variables, of words. */
const MAX_ENTRIES = 1_000
/** Of one variable or word: the most that Linux takes (MAX_ARG_STRLEN, execve(2)). */
const MAX_STRING = 131_072
/** That anybody waits for. */
const MAX_PORTS = 50
/** Of a path (PATH_MAX), and of all names. */
const MAX_NAME = 4_096

const name = z.string().max(MAX_NAME)
const descriptorSchema = z.object({
  digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  size: z.int().min(0),
})
const platformSchema = z.object({ os: name, architecture: name })
const indexSchema = z.object({
  manifests: z.array(descriptorSchema.extend({ platform: platformSchema.optional() })).max(MAX_ENTRIES),
})
const manifestSchema = z.object({
  schemaVersion: z.literal(2),
  config: descriptorSchema,
  layers: z.array(descriptorSchema).max(MAX_ENTRIES),
})
const strings = z
  .array(z.string().max(MAX_STRING))
  .max(MAX_ENTRIES)
  .nullish()
  .transform((value) => value ?? [])
const portsSchema = z
  .record(name, z.unknown())
  .nullish()
  .transform((said) => Object.keys(said ?? {}).flatMap((key) => tcpPort(key) ?? []))
const word = name.nullish().transform((value) => value ?? '')
const configSchema = z.object({
  architecture: name,
  os: name,
  config: z
    .object({
      Env: strings,
      User: word,
      WorkingDir: word,
      Entrypoint: strings,
      Cmd: strings,
      ExposedPorts: portsSchema,
    })
    .nullish(),
})

/** What a container of an image would run, as whom, where and with which environment. */
export interface ImageConfig {
  readonly env: readonly string[]
  readonly user: string
  readonly workingDir: string
  /** Program and arguments, which `command` goes on. */
  readonly entrypoint: readonly string[]
  readonly command: readonly string[]
  /** TCP ports that it says it serves. */
  readonly ports: readonly number[]
}

/** An index says which manifest is for which machine. */
export type Manifest =
  | { readonly kind: 'index'; readonly ours: string | undefined; readonly offered: readonly string[] }
  | { readonly kind: 'image'; readonly layerBytes: number }

/** What Go calls this machine. */
export function imageArchitecture(arch: string = process.arch): string {
  return arch === 'x64' ? 'amd64' : arch
}

/** @throws AppError `image_not_usable` for what is neither an index nor a manifest of today */
export function parseManifest(raw: string, architecture: string): Manifest {
  const json = parseJson(raw)
  const list = indexSchema.safeParse(json)
  if (list.success) {
    const linux = list.data.manifests.filter(({ platform }) => platform?.os === 'linux')
    const ours = linux.find(({ platform }) => platform?.architecture === architecture)?.digest
    const offered = list.data.manifests.map(({ platform }) => `${platform?.os ?? '?'}/${platform?.architecture ?? '?'}`)
    return { kind: 'index', ours, offered: [...new Set(offered)].filter((machine) => !machine.includes('unknown')) }
  }
  const image = manifestSchema.safeParse(json)
  if (!image.success) {
    throw new AppError('image_not_usable', 'Its manifest is neither of Docker, version 2 schema 2, nor of OCI.')
  }
  return { kind: 'image', layerBytes: image.data.layers.reduce((sum, { size }) => sum + size, 0) }
}

/** What an image's config says. @throws AppError `image_not_usable` when it is none, or is for another machine */
export function parseImageConfig(raw: string, architecture: string): ImageConfig {
  const parsed = configSchema.safeParse(parseJson(raw))
  if (!parsed.success) {
    const where = parsed.error.issues[0]?.path.slice(0, 2).join('.') || 'it'
    throw new AppError('image_not_usable', `Its config is none, or has more than images may: ${where}.`)
  }
  const { os, architecture: made, config: run } = parsed.data
  if (os !== 'linux' || made !== architecture) {
    throw new AppError('image_not_usable', `It is for ${os}/${made}, and this host is linux/${architecture}.`)
  }
  return {
    env: run?.Env ?? [],
    user: run?.User ?? '',
    workingDir: run?.WorkingDir ?? '',
    entrypoint: run?.Entrypoint ?? [],
    command: run?.Cmd ?? [],
    ports: (run?.ExposedPorts ?? []).slice(0, MAX_PORTS),
  }
}

/** `sha256:…` of its bytes. */
export function digestOf(raw: string): string {
  return `sha256:${createHash('sha256').update(raw).digest('hex')}`
}

/** Of `80/tcp`; one that does not say is TCP's. */
function tcpPort(key: string): number | undefined {
  const port = Number(/^(\d{1,5})(?:\/tcp)?$/i.exec(key)?.[1])
  return port >= 1 && port <= 65_535 ? port : undefined
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
