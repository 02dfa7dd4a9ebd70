import { AppError } from '@wrenn/base'
import { formatImageReference, parseImageReference } from '@wrenn/protocol'
import { z } from 'zod'

/** Of images in one file. */
const MAX_IMAGES = 1_000
/** By name, in one sentence. */
const MAX_TOLD = 10
const MAX_NAME = 512

/** As engines write it for themselves, as containerd does, and as the specification has it. */
const NAMES = ['io.containerd.image.name', 'org.opencontainers.image.ref.name'] as const

const dockerSchema = z
  .array(
    z.object({
      Config: z.string(),
      RepoTags: z
        .array(z.string())
        .nullish()
        .transform((tags) => tags ?? []),
    }),
  )
  .max(MAX_IMAGES)
const indexSchema = z.object({
  schemaVersion: z.literal(2),
  manifests: z
    .array(
      z.looseObject({
        digest: z.string(),
        annotations: z.record(z.string(), z.string()).nullish(),
        platform: z.object({ os: z.string(), architecture: z.string() }).nullish(),
      }),
    )
    .max(MAX_IMAGES),
})

/** Which image of a file is meant, in the words of its kind. */
export type ArchiveChoice =
  /** Its place in `manifest.json`. */
  | { readonly kind: 'docker'; readonly at: number }
  /** An index that has it alone. */
  | { readonly kind: 'oci'; readonly index: string }

interface Offered {
  readonly names: readonly string[]
  readonly choice: ArchiveChoice
}

interface Texts {
  /** What `docker save` says of what it has saved; newer ones write both. */
  readonly manifest: string | undefined
  /** Of an OCI layout. */
  readonly index: string | undefined
}

/**
 * Chooses one image of a file, by one of its names, or `@` and its place.
 * @param wanted absent: it has one alone
 * @throws AppError `image_not_usable` for a file without images, or of several that `wanted` does not choose between;
 * `image_not_found` for a name that there is not
 */
export function chooseImage(texts: Texts, wanted: string | undefined, architecture: string): ArchiveChoice {
  const offered = texts.manifest === undefined ? ofLayout(texts.index, architecture) : ofDocker(texts.manifest)
  const [first, ...others] = offered
  if (first === undefined) throw new AppError('image_not_usable', 'it has no image.')
  if (wanted === undefined) {
    if (others.length === 0) return first.choice
    throw new AppError(
      'image_not_usable',
      `it has ${offered.length} images, of which one is to be chosen: ${told(offered)}.`,
    )
  }
  const [found, ...more] = offered.filter(
    ({ names }, at) => wanted === `@${at}` || names.some((name) => isSame(name, wanted)),
  )
  if (found === undefined) throw new AppError('image_not_found', `it has no image ${wanted}, but ${told(offered)}.`)
  if (more.length === 0) return found.choice
  const places = [found, ...more].map((one) => `@${offered.indexOf(one)}`)
  throw new AppError(
    'image_not_usable',
    `it has ${places.length} images ${wanted}; choose by their places: ${listed(places)}.`,
  )
}

function ofDocker(manifest: string): readonly Offered[] {
  const parsed = dockerSchema.safeParse(parseJson(manifest))
  if (!parsed.success) throw new AppError('image_not_usable', 'its manifest.json is not one of docker save.')
  return parsed.data.map(({ RepoTags: names }, at) => ({ names, choice: { kind: 'docker', at } }))
}

/** An image that has several names is there several times. */
function ofLayout(index: string | undefined, architecture: string): readonly Offered[] {
  if (index === undefined) {
    throw new AppError(
      'image_not_usable',
      'it is neither of docker save nor an OCI layout: it has no manifest.json and no index.json.',
    )
  }
  const parsed = indexSchema.safeParse(parseJson(index))
  if (!parsed.success) throw new AppError('image_not_usable', 'its index.json is not one of an OCI layout.')
  const { manifests } = parsed.data
  const ours = manifests.filter(({ platform }) => isOurs(platform, architecture))
  if (ours.length === 0 && manifests.length > 0) {
    const machines = new Set(manifests.map(({ platform }) => `${platform?.os}/${platform?.architecture}`))
    const text = [...machines].slice(0, MAX_TOLD).join(', ')
    throw new AppError('image_not_usable', `it is for ${text}, and this host is linux/${architecture}.`)
  }
  const byDigest = new Map<string, Offered>()
  for (const descriptor of ours) {
    const { digest, annotations } = descriptor
    const names = NAMES.flatMap((key) => annotations?.[key] ?? [])
    const alone = JSON.stringify({ schemaVersion: 2, manifests: [descriptor] })
    const before = byDigest.get(digest)
    byDigest.set(digest, {
      names: [...(before?.names ?? []), ...names],
      choice: before?.choice ?? { kind: 'oci', index: alone },
    })
  }
  return [...byDigest.values()]
}

/** What says nothing of a machine may be for this one. */
function isOurs(
  platform: { readonly os: string; readonly architecture: string } | null | undefined,
  architecture: string,
) {
  return platform == null || (platform.os === 'linux' && platform.architecture === architecture)
}

/** `app` is `docker.io/library/app:latest`, wherever one of them is written. */
function isSame(name: string, wanted: string): boolean {
  if (name === wanted) return true
  const [one, other] = [parseImageReference(name), parseImageReference(wanted)]
  return one !== undefined && other !== undefined && formatImageReference(one) === formatImageReference(other)
}

/** The first name of each that can be shown. */
function told(offered: readonly Offered[]): string {
  const names = offered.map(({ names: all }, at) => all.find(isPlain) ?? `@${at}`)
  return listed(names)
}

function listed(names: readonly string[]): string {
  const more = names.length - MAX_TOLD
  return [...names.slice(0, MAX_TOLD), ...(more > 0 ? [`${more} more`] : [])].join(', ')
}

function isPlain(name: string): boolean {
  return name.length <= MAX_NAME && /^[\x21-\x7e]+$/.test(name)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
