import { Filesystem } from './gen/filesystem/filesystem_pb.js'
import { Process } from './gen/process/process_pb.js'

const calls = [Process, Filesystem].flatMap(({ typeName, methods }) =>
  methods.map(({ name }) => `POST /${typeName}/${name}`),
)
const plain = ['GET /health', 'HEAD /health', 'GET /files', 'HEAD /files', 'POST /files', 'GET /metrics', 'GET /envs']
const routes: ReadonlySet<string> = new Set([...plain, ...calls])
const paths: ReadonlySet<string> = new Set([...routes].map((route) => route.slice(route.indexOf(' ') + 1)))

/**
 * Whether clients of a capsule may ask its guest agent for this; every other route is its host's alone. `path` is without the query and as it
 * came: another spelling of a route is none.
 */
export function isClientRoute(method: string, path: string): boolean {
  return routes.has(`${method} ${path}`)
}

/** Whether there is such a route for clients, by whatever method. */
export function isClientPath(path: string): boolean {
  return paths.has(path)
}
