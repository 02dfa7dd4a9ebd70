import { parseImageReference } from '@wrenn/sdk'

/** Of Docker Hub, as images name it, and as people and its own documentation do. */
const DOCKER_HUB = 'docker.io'
const HUB_NAMES: ReadonlySet<string> = new Set(['hub.docker.com', 'index.docker.io', 'registry-1.docker.io'])

/**
 * A registry as images name it, of what people paste: with a scheme, a path or capital letters.
 * @returns `undefined` for what is none
 */
export function registryNamed(text: string): string | undefined {
  const host = text
    .trim()
    .toLowerCase()
    .replace(/^https?:\/\//, '')
    .replace(/\/.*$/s, '')
  const name = HUB_NAMES.has(host) ? DOCKER_HUB : host
  return parseImageReference(`${name}/a/b`)?.registry === name ? name : undefined
}
