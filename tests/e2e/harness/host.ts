import { execFile } from 'node:child_process'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export interface Owner {
  /** WRENN_INSTANCE. */
  readonly instance: string
  /** WRENN_DIR. */
  readonly dir: string
}

export interface HostProcess {
  readonly pid: number
  readonly argv: readonly string[]
}

/** Every process whose command line names something below `dir`. */
export async function processesOf(dir: string): Promise<HostProcess[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const all = await Promise.all(pids.map(async (pid) => ({ pid, argv: await argvOf(pid) })))
  return all.filter(({ pid, argv }) => pid !== process.pid && argv.some((word) => word.includes(`${dir}/`)))
}

async function argvOf(pid: number): Promise<string[]> {
  // A process may end while it is looked at.
  const text = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  return text.split('\0').filter((word) => word !== '')
}

export interface EngineProcess extends HostProcess {
  /** Capsule id, or the id of a guest that waits in the hot pool. */
  readonly vmId: string
}

/** The QEMU processes of a platform, each with the id of its guest. */
export async function engines(dir: string): Promise<EngineProcess[]> {
  const found = await processesOf(dir)
  return found
    .filter(({ argv }) => argv[argv.indexOf('-name') + 1]?.startsWith('guest='))
    .map((one) => ({ ...one, vmId: vmIdOf(one.argv) }))
}

function vmIdOf(argv: readonly string[]): string {
  const name = argv[argv.indexOf('-name') + 1] ?? ''
  return /^(?:guest=)?([^,]+)/.exec(name)?.[1] ?? ''
}

/** The process that runs a capsule, found by the capsule's own directory. */
export async function engineOf(dir: string, capsuleId: string): Promise<EngineProcess> {
  const found = (await engines(dir)).find(({ argv }) => argv.some((word) => word.includes(`/${capsuleId}/`)))
  if (found !== undefined) return found
  const claimed = (await vmIdOfCapsule(dir, capsuleId)) ?? capsuleId
  const byVm = (await engines(dir)).find(({ vmId }) => vmId === claimed)
  if (byVm === undefined) throw new Error(`No engine process runs ${capsuleId}.`)
  return byVm
}

/** A capsule from the hot pool keeps the directory of the guest it claimed; the journal says which. */
async function vmIdOfCapsule(dir: string, capsuleId: string): Promise<string | undefined> {
  const text = await readFile(join(dir, 'journal', `${capsuleId}.json`), 'utf8').catch(() => '{}')
  return /"vmId"\s*:\s*"([^"]+)"/.exec(text)?.[1]
}

/** What a platform has on its host, by the host's own listings. */
export interface HostListing {
  readonly engines: readonly string[]
  readonly namespaces: readonly string[]
  readonly links: readonly string[]
  readonly tables: readonly string[]
  readonly mounts: readonly string[]
  readonly loops: readonly string[]
  /** Groups of guests, once each however many hierarchies they are in. */
  readonly cgroups: readonly string[]
  /** What the groups are made in. */
  readonly cgroupParents: readonly string[]
  readonly processes: readonly string[]
}

export async function listHost(owner: Owner): Promise<HostListing> {
  const { dir } = owner
  return {
    engines: (await engines(dir)).map(({ vmId }) => vmId),
    namespaces: (await entries('/run/netns')).filter((name) => isOurs(name, owner)),
    links: await links(owner),
    tables: await tables(owner),
    mounts: (await mountPoints()).filter((path) => path.startsWith(`${dir}/`)),
    loops: await loops(dir),
    cgroups: await cgroups(owner),
    cgroupParents: await cgroupParents(owner),
    processes: (await processesOf(dir)).map(({ pid, argv }) => `${pid} ${argv.slice(0, 4).join(' ')}`),
  }
}

/** A slot's, or the egress filter's. */
function isOurs(name: string, { instance }: Pick<Owner, 'instance'>): boolean {
  return name.startsWith(`${instance}-`) || name === `${instance}flt`
}

async function links({ instance }: Owner): Promise<string[]> {
  const { stdout } = await run('ip', ['-o', 'link'])
  const names = [...stdout.matchAll(/^\d+: ([^:@]+)/gm)].map(([, name = '']) => name)
  return names.filter((name) => isOurs(name, { instance }) || name === `${instance}dns`)
}

async function tables({ instance }: Owner): Promise<string[]> {
  const { stdout } = await run('nft', ['list', 'tables'])
  return stdout.split('\n').filter((line) => line.split(' ').at(-1) === instance)
}

async function mountPoints(): Promise<string[]> {
  const text = await readFile('/proc/self/mounts', 'utf8')
  return text.split('\n').map((line) => line.split(' ')[1] ?? '')
}

async function loops(dir: string): Promise<string[]> {
  const { stdout } = await run('losetup', ['--list', '--noheadings', '--output', 'NAME,BACK-FILE'])
  return stdout.split('\n').filter((line) => line.includes(` ${dir}/`))
}

async function cgroups(owner: Owner): Promise<string[]> {
  const groups = await Promise.all((await cgroupParents(owner)).map(directories))
  return [...new Set(groups.flat())]
}

async function cgroupParents({ instance }: Owner): Promise<string[]> {
  const root = '/sys/fs/cgroup'
  const candidates = [root, ...(await entries(root)).map((name) => join(root, name))].map((tree) =>
    join(tree, instance),
  )
  const found = await Promise.all(candidates.map(async (path) => ((await isDirectory(path)) ? [path] : [])))
  return found.flat()
}

async function isDirectory(path: string): Promise<boolean> {
  return await stat(path).then(
    (stats) => stats.isDirectory(),
    () => false,
  )
}

async function directories(path: string): Promise<string[]> {
  const found = await readdir(path, { withFileTypes: true }).catch(() => [])
  return found.filter((entry) => entry.isDirectory()).map(({ name }) => name)
}

/** Names in a directory; none when there is no such directory. */
export async function entries(path: string): Promise<string[]> {
  return await readdir(path).catch(() => [])
}

/** What belongs to capsules that somebody made: nothing of it may outlive them. Waiting guests are not among it. */
export async function capsuleTraces(owner: Owner): Promise<Record<string, string[]>> {
  const { dir } = owner
  const hot = new Set(await waitingGuests(dir))
  const not = (name: string): boolean => !hot.has(name.replace(/\.json$/, ''))
  return {
    engines: (await engines(dir)).map(({ vmId }) => vmId).filter(not),
    // The egress filter's is the platform's own, whichever capsules there are.
    cgroups: (await cgroups(owner)).filter((name) => name !== 'egress-filter').filter(not),
    files: (await entries(join(dir, 'pool', 'capsules'))).filter(not),
    snapshots: await entries(join(dir, 'pool', 'snapshots')),
    runDirectories: (await entries(join(dir, 'run', 'vm'))).filter(not),
    journal: await entries(join(dir, 'journal')),
  }
}

/** Guests that no record owns: the hot pool's. */
async function waitingGuests(dir: string): Promise<string[]> {
  const records = await Promise.all(
    (await entries(join(dir, 'journal'))).map((name) => readFile(join(dir, 'journal', name), 'utf8').catch(() => '')),
  )
  const names = new Set([
    ...(await entries(join(dir, 'run', 'vm'))),
    ...(await engines(dir)).map(({ vmId }) => vmId),
    ...(await entries(join(dir, 'pool', 'capsules'))),
  ])
  return [...names].filter((name) => name.startsWith('hot-') && !records.some((record) => record.includes(name)))
}
