/** An image in a registry, as people write it and as it is fetched. */
export interface ImageReference {
  /** With its port, if it has one: `docker.io`, `registry.example:5000`. */
  readonly registry: string
  /** Within the registry: `library/python`. */
  readonly path: string
  /** Absent where a digest says which one. */
  readonly tag: string | undefined
  /** `sha256:…` of a manifest or an index of them. */
  readonly digest: string | undefined
}

const DOCKER_HUB = 'docker.io'
const MAX_LENGTH = 255
const host = /^(?=.{1,253}(?::|$))[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*(?::\d{1,5})?$/
const pathPart = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/
const tagPattern = /^\w[\w.-]{0,127}$/
const digestPattern = /^sha256:[0-9a-f]{64}$/

/**
 * Reads `[registry[:port]/]name[:tag][@digest]` as container engines do: without a registry it is Docker Hub, whose own images are in
 * `library/`; without a tag it is `latest`; beside a digest a tag says nothing.
 * @returns `undefined` for what is no reference
 * @see https://github.com/distribution/reference/blob/v0.6.0/reference.go
 */
export function parseImageReference(text: string): ImageReference | undefined {
  const [named = '', digest, ...more] = text.split('@')
  if (more.length > 0 || (digest !== undefined && !digestPattern.test(digest))) return undefined
  const slash = named.lastIndexOf('/')
  const colon = named.indexOf(':', slash + 1)
  const name = colon === -1 ? named : named.slice(0, colon)
  const tag = colon === -1 ? undefined : named.slice(colon + 1)
  if (tag !== undefined && !tagPattern.test(tag)) return undefined
  const { registry, path } = splitName(name)
  if (!host.test(registry) || registry.length + path.length > MAX_LENGTH) return undefined
  if (!path.split('/').every((part) => pathPart.test(part))) return undefined
  return { registry, path, tag: digest === undefined ? (tag ?? 'latest') : undefined, digest }
}

/** As engines print it, with registry and tag or digest. */
export function formatImageReference({ registry, path, tag, digest }: ImageReference): string {
  return `${registry}/${path}${digest === undefined ? `:${tag ?? 'latest'}` : `@${digest}`}`
}

/** What comes before the first slash is a registry when it looks like a host; a word alone is a folder of Docker Hub. */
function splitName(name: string): { readonly registry: string; readonly path: string } {
  const slash = name.indexOf('/')
  const first = name.slice(0, Math.max(slash, 0)).toLowerCase()
  const isHost = slash > 0 && (first === 'localhost' || /[.:]/.test(first))
  const registry = isHost ? first.replace(/^index\.docker\.io$/, DOCKER_HUB) : DOCKER_HUB
  const path = isHost ? name.slice(slash + 1) : name
  return { registry, path: registry === DOCKER_HUB && !path.includes('/') ? `library/${path}` : path }
}
