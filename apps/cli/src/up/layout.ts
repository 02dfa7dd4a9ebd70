import { existsSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AppError, lifelinePath } from '@wrenn/base'

/** The children of `wrenn up` that are our own programs, by the name of their folder below `apps`. */
export type ServiceName = 'host-agent' | 'control-plane'

/** Of the embedded PostgreSQL. */
export const DATABASE = 'wrenn'

/** Where things lie in a platform's directory. */
export interface Layout {
  readonly dir: string
  readonly runDir: string
  readonly logsDir: string
  readonly postgresDir: string
  /** The host agent's records, a file per capsule. */
  readonly journalDir: string
  readonly hostSocket: string
  /** By what the machine is a host of a platform elsewhere; then there is nothing but a host agent here. */
  readonly hostIdentityFile: string
  readonly apiKeyFile: string
  /** What the platform encrypts secrets with; without it, what was encrypted is lost. */
  readonly encryptionKeyFile: string
  /** What makes the first account, while nobody has one. */
  readonly setUpFile: string
  /** Mails of a platform without a mail server. */
  readonly outboxDir: string
  /** Uploaded files of templates' builds. */
  readonly buildFilesDir: string
  /** Certificates that the platform serves, and its own authority. */
  readonly tlsDir: string
  /** Who runs here: pid of the supervisor and of its children. */
  readonly recordFile: string
  /** Copies of what services run where their users cannot read the original. */
  readonly programsDir: string
  /** What a service and its tools keep open, to be found by it. */
  readonly lifelines: Readonly<Record<ServiceName, string>>
}

/** Where everything of a platform's directory is. Nothing is made or looked for. */
export function layoutOf(dir: string): Layout {
  const absolute = resolve(dir)
  const runDir = join(absolute, 'run')
  return {
    dir: absolute,
    runDir,
    logsDir: join(absolute, 'logs'),
    postgresDir: join(absolute, 'postgres'),
    journalDir: join(absolute, 'journal'),
    hostSocket: join(runDir, 'host-agent.sock'),
    hostIdentityFile: join(absolute, 'host-identity.json'),
    apiKeyFile: join(absolute, 'api-key'),
    encryptionKeyFile: join(absolute, 'encryption-key'),
    setUpFile: join(runDir, 'set-up-code'),
    outboxDir: join(absolute, 'outbox'),
    buildFilesDir: join(absolute, 'build-files'),
    tlsDir: join(absolute, 'tls'),
    recordFile: join(runDir, 'up.json'),
    programsDir: join(runDir, 'programs'),
    lifelines: {
      'host-agent': lifelinePath(join(runDir, 'host-agent')),
      'control-plane': lifelinePath(join(runDir, 'control-plane')),
    },
  }
}

/** Of the platform's directory, all that has a place in its layout; `programs` was in `bin` before. */
export function ownEntries({ dir, lifelines, ...places }: Layout): ReadonlySet<string> {
  const paths = [...Object.values(places), ...Object.values(lifelines)]
  return new Set(['bin', ...paths.map((path) => relative(dir, path).split(sep)[0] ?? '')])
}

/** The folder that holds `apps/`: found by walking up from this file, so it works from source and from the bundle. */
export function findRoot(): string {
  let at = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(at, 'apps/cli/package.json'))) {
    if (at === dirname(at)) throw new AppError('invalid_config', 'This `wrenn` is not part of a Wrenn checkout.')
    at = dirname(at)
  }
  return at
}

/** @throws AppError `invalid_config` when the app is not built. */
export function appBundle(app: ServiceName): string {
  const bundle = join(findRoot(), 'apps', app, 'dist/main.mjs')
  if (existsSync(bundle)) return bundle
  throw new AppError('invalid_config', `${bundle} does not exist: run \`npm run build\` first.`)
}
