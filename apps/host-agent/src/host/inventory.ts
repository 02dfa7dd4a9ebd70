import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isErrno } from '@wrenn/base'
import { run, runForResult } from './exec.js'
import { listMounts } from './mounts.js'
import { parseLabel } from './network/label.js'
import { filterLink, isSharedLink } from './network/own-links.js'
import { listLinks, listNamespaces } from './network/slot.js'
import { TAP } from './network/tap-counters.js'
import { listLoopDevices } from './pool/loop-image.js'

type HostResourceKind = 'namespace' | 'link' | 'tap' | 'table' | 'loop' | 'mount' | 'cgroup' | 'process'

/** Something on this machine that is ours by its name or place. */
export interface HostResource {
  readonly kind: HostResourceKind
  /** Unique within its kind; for a process its pid. */
  readonly name: string
  /** Capsule or VM id, where the thing tells. */
  readonly owner: string | undefined
}

interface InventoryOptions {
  /** WRENN_INSTANCE. */
  readonly prefix: string
  /** WRENN_DIR. */
  readonly dir: string
}

/** Everything on this host that carries the prefix or lives below the directory: what must be gone when all capsules are. */
export async function listHostResources(options: InventoryOptions): Promise<readonly HostResource[]> {
  const parts = await Promise.all([
    listNetwork(options),
    listTables(options),
    listLoops(options),
    listOurMounts(options),
    listCgroups(options),
    listEngines(options),
  ])
  return parts.flat()
}

async function listNetwork({ prefix }: InventoryOptions): Promise<readonly HostResource[]> {
  const isSlot = (name: string): boolean => name.startsWith(`${prefix}-`) && /^\d+$/.test(name.slice(prefix.length + 1))
  const links = (await listLinks()).filter(({ name }) => isSlot(name) || isSharedLink(prefix, name))
  const owners = new Map(links.map(({ name, alias }) => [name, parseLabel(alias)?.owner]))
  const namespaces = (await listNamespaces()).filter((name) => isSlot(name) || name === filterLink(prefix))
  const taps = await Promise.all(namespaces.map(async (name) => ((await hasTap(name)) ? [name] : [])))
  return [
    ...links.map(({ name }) => ({ kind: 'link' as const, name, owner: owners.get(name) })),
    ...namespaces.map((name) => ({ kind: 'namespace' as const, name, owner: owners.get(name) })),
    ...taps.flat().map((name) => ({ kind: 'tap' as const, name: `${name}/${TAP}`, owner: owners.get(name) })),
  ]
}

async function hasTap(namespace: string): Promise<boolean> {
  return (await runForResult('ip', ['-n', namespace, 'link', 'show', 'dev', TAP])).exitCode === 0
}

async function listTables({ prefix }: InventoryOptions): Promise<readonly HostResource[]> {
  const tables = (await run('nft', ['list', 'tables'])).split('\n').map((line) => line.replace(/^table /, ''))
  return tables.filter((table) => table === `inet ${prefix}`).map((name) => ({ kind: 'table', name, owner: undefined }))
}

async function listLoops({ dir }: InventoryOptions): Promise<readonly HostResource[]> {
  const devices = await listLoopDevices()
  return devices
    .filter(({ backingFile }) => isBelow(backingFile, dir))
    .map(({ name }) => ({ kind: 'loop', name, owner: undefined }))
}

async function listOurMounts({ dir }: InventoryOptions): Promise<readonly HostResource[]> {
  const mounts = await listMounts()
  return mounts
    .filter(({ target }) => isBelow(target, dir))
    .map(({ target }) => ({ kind: 'mount', name: target, owner: undefined }))
}

async function listCgroups({ prefix }: InventoryOptions): Promise<readonly HostResource[]> {
  const trees = (await listMounts()).filter(({ type }) => type === 'cgroup' || type === 'cgroup2')
  const parents = [...new Set(trees.map(({ target }) => join(target, prefix)))]
  const groups = await Promise.all(
    parents.map(async (parent) => (await children(parent)).map((id) => ({ parent, id }))),
  )
  return groups.flat().map(({ parent, id }) => ({ kind: 'cgroup', name: join(parent, id), owner: id }))
}

/** Engines and loaders of memory by what their command line says: their files and sockets are below the directory. */
async function listEngines({ dir }: InventoryOptions): Promise<readonly HostResource[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found = await Promise.all(pids.map(async (pid) => ({ pid, argv: await commandLine(pid) })))
  return found
    .map(({ pid, argv }) => ({ pid, argv, owner: guestName(argv) ?? loadedName(argv) }))
    .filter(({ argv, owner }) => owner !== undefined && argv.some((word) => word.includes(`${dir}/`)))
    .map(({ pid, owner }) => ({ kind: 'process', name: pid, owner }))
}

/** The id in `-name guest=<id>`: the machine's owner chooses which program it is. */
function guestName(argv: readonly string[]): string | undefined {
  const at = argv.indexOf('-name')
  return at < 0 ? undefined : /^guest=([^,]+)/.exec(argv[at + 1] ?? '')?.[1]
}

/** The capsule whose memory a loader serves: the last word is the state's directory. */
function loadedName(argv: readonly string[]): string | undefined {
  const words = argv.filter((word) => word !== '')
  if (!words.some((word) => word.endsWith('/memory-loader.mjs'))) return undefined
  return /\/capsules\/([^/]+)\//.exec(words.at(-1) ?? '')?.[1]
}

async function commandLine(pid: string): Promise<readonly string[]> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return []
    throw error
  }
}

async function children(directory: string): Promise<readonly string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}

function isBelow(path: string, dir: string): boolean {
  return path.startsWith(`${dir}/`)
}
