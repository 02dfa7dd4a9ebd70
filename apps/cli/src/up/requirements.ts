import { once } from 'node:events'
import { constants } from 'node:fs'
import { access, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { AppError, isErrno } from '@wrenn/base'
import type { Output } from '../output.js'
import { findRoot } from './layout.js'

/** `scripts/debian-packages.mjs`: plain JavaScript, because it also runs before anything is installed or built. */
interface DebianPackages {
  readonly debianPackages: readonly string[]
  readonly requiredPackages: readonly string[]
  missingPackages(wanted: readonly string[]): string[]
  aptLine(names: readonly string[]): string
  installPackages(names: readonly string[]): void
}

async function loadPackages(): Promise<DebianPackages> {
  const url = pathToFileURL(join(findRoot(), 'scripts/debian-packages.mjs')).href
  const module: DebianPackages = await import(url)
  return module
}

/** @throws AppError `forbidden` */
export function requireRoot(): void {
  if (process.getuid?.() === 0) return
  throw new AppError(
    'forbidden',
    'Wrenn needs root on this machine: it makes network namespaces, mounts and a user of its own for each capsule. ' +
      'Run it with sudo; the capsules themselves, the database and the API do not run as root.',
  )
}

/** @throws AppError `invalid_config` with the one line that installs what is missing. */
export async function requireDebianPackages(install: boolean, output: Output): Promise<void> {
  const packages = await loadPackages()
  const missing = packages.missingPackages(install ? packages.debianPackages : packages.requiredPackages)
  if (missing.length === 0) return
  if (!install) {
    throw new AppError(
      'invalid_config',
      `These Debian packages are missing: ${missing.join(', ')}. Run \`${packages.aptLine(missing)}\`, ` +
        'or start again with --install.',
    )
  }
  output.note(`Installing ${missing.join(' ')}`)
  packages.installPackages(missing)
}

/**
 * The API does not run as root, so a port that is root's alone would be free and yet not for it.
 * @throws AppError `invalid_config`
 */
async function requireOpenToAll(port: number, option: string): Promise<void> {
  const first = Number(await readFile('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8').catch(() => '0'))
  if (port === 0 || port >= first) return
  const message = `Ports below ${first} are root's on this machine, and the API does not run as root: choose another ${option}`
  throw new AppError('invalid_config', `${message}, or run \`sysctl -w net.ipv4.ip_unprivileged_port_start=${port}\`.`)
}

/** @throws AppError `invalid_config` when the folder for the platform cannot be written. */
export async function requireWritable(dir: string): Promise<void> {
  try {
    await access(dir, constants.W_OK | constants.X_OK)
  } catch (cause) {
    throw new AppError('invalid_config', `Wrenn cannot write to ${dir}: choose another --dir.`, { cause })
  }
}

/**
 * Another server there would answer in place of ours, and look ready.
 * @throws AppError `conflict` when somebody listens there, `invalid_config` when this machine has no such address.
 */
async function requireFreePort(host: string, port: number, option: string): Promise<void> {
  const server = createServer()
  try {
    await once(server.listen({ host, port, exclusive: true }), 'listening')
  } catch (cause) {
    if (isErrno(cause, 'EADDRINUSE')) {
      throw new AppError(
        'conflict',
        `Something listens on port ${port} of ${host} already: stop it, or choose another ${option}.`,
        { cause },
      )
    }
    throw new AppError('invalid_config', `Wrenn cannot listen on port ${port} of ${host}: choose another --host.`, {
      cause,
    })
  }
  server.close()
  await once(server, 'close')
}

/**
 * A port that can be listened on; `option` is what chose it.
 * @throws AppError `invalid_config`, `conflict`
 */
export async function requirePort(host: string, port: number, option: string): Promise<void> {
  await requireOpenToAll(port, option)
  await requireFreePort(host, port, option)
}

/** Where to reach a server that listens on every address. */
export function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  if (host === '::') return '[::1]'
  return host.includes(':') ? `[${host}]` : host
}
