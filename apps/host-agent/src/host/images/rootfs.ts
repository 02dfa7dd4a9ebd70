import { chmod, lstat, lutimes, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { AppError } from '@wrenn/base'
import { Apt } from './apt.js'
import { runCommand } from './command.js'
import type { ImageManifest } from './manifest.js'
import type { ImageStoreOptions } from './progress.js'
import { walk } from './walk.js'

/** Against one that hangs: 90 s on an ordinary machine, more than 15 minutes on one that is emulated itself. */
const BOOTSTRAP_TIMEOUT_MS = 90 * 60_000

/** Kept out of the image, also when the guest installs more later. */
const TRIMMED = [
  '/usr/share/doc/*',
  '/usr/share/man/*',
  '/usr/share/info/*',
  '/usr/share/locale/*',
  '/usr/share/lintian/*',
]
const KEPT = ['/usr/share/doc/*/copyright', '/usr/share/locale/locale.alias']

/** Written during a build and of no use after it. */
const LEFTOVERS = [
  'etc/.pwd.lock',
  'etc/group-',
  'etc/gshadow-',
  'etc/passwd-',
  'etc/shadow-',
  'etc/subgid-',
  'etc/subuid-',
  'var/cache/debconf/config.dat-old',
  'var/cache/debconf/templates.dat-old',
  'var/cache/ldconfig/aux-cache',
  'var/lib/dpkg/status-old',
  'var/lib/dpkg/diversions-old',
  'var/lib/dpkg/statoverride-old',
  'var/log/alternatives.log',
  'var/log/apt',
  'var/log/bootstrap.log',
  'var/log/dpkg.log',
]

interface Rootfs {
  /** Newest time of any packaged file: the same for the same packages. */
  readonly epochSeconds: number
  readonly packages: Readonly<Record<string, string>>
}

/** Installs the manifest's system into `folder`, which must not exist yet. */
export async function buildRootfs(
  folder: string,
  scratchDir: string,
  manifest: ImageManifest,
  options: ImageStoreOptions,
): Promise<Rootfs> {
  if (process.getuid?.() !== 0) throw new AppError('permission_denied', 'Building an image needs root.')
  const apt = await Apt.open(manifest.suite, options)
  const sourcesPath = join(scratchDir, 'debian.sources')
  await writeFile(sourcesPath, apt.sources)
  options.onProgress?.({ step: 'download', detail: `Downloading the packages of ${manifest.name}` })
  await apt.downloadSystem([...VARIANT_PACKAGES[manifest.variant], ...manifest.packages])
  options.onProgress?.({ step: 'bootstrap', detail: `Installing Debian ${manifest.suite}`, fraction: 0 })
  const startedAtSeconds = Math.floor(Date.now() / 1000)
  await bootstrap(folder, sourcesPath, manifest, apt, options.signal)
  options.onProgress?.({ step: 'image', detail: `Configuring ${manifest.name}`, fraction: 0.75 })
  await configure(folder, manifest, apt.sources)
  const packages = await installedPackages(folder)
  return { epochSeconds: await settleTimes(folder, startedAtSeconds), packages }
}

/**
 * mmdebstrap runs in its own mount and PID namespace, which ends with this process: whatever interrupts it, no mount and no
 * process is left that would write into a folder the next builder removes.
 */
async function bootstrap(
  folder: string,
  sourcesPath: string,
  manifest: ImageManifest,
  apt: Apt,
  signal: AbortSignal | undefined,
): Promise<void> {
  await runCommand('mmdebstrap', ['--version'], { signal })
  const users = manifest.users.map(
    ({ name, uid, home, shell }) =>
      `--customize-hook=chroot "$1" useradd --create-home --uid ${uid} --user-group --home-dir ${home} --shell ${shell} ${name}`,
  )
  await runCommand(
    'setpriv',
    [
      ...['--pdeathsig', 'KILL', 'unshare'],
      ...['--mount', '--pid', '--fork', '--kill-child=SIGKILL', '--mount-proc', 'mmdebstrap'],
      ...['--quiet', '--mode=root', '--format=directory', `--variant=${manifest.variant}`],
      ...(manifest.packages.length > 0 ? [`--include=${manifest.packages.join(',')}`] : []),
      // A build that is interrupted is begun anew: nothing of it needs to be on the disk before its end.
      '--dpkgopt=force-unsafe-io',
      ...[...TRIMMED, ...(manifest.exclude ?? [])].map((path) => `--dpkgopt=path-exclude=${path}`),
      ...KEPT.map((path) => `--dpkgopt=path-include=${path}`),
      ...users,
      ...(manifest.prepare === undefined
        ? []
        : [`--customize-hook=chroot "$1" env HOME=/root sh -c ${shellWord(manifest.prepare)}`]),
      ...withOwnDownloads(apt),
      ...[manifest.suite, folder, sourcesPath],
    ],
    { signal, timeoutMs: BOOTSTRAP_TIMEOUT_MS, debianPackage: 'util-linux' },
  )
}

/** What each variant of mmdebstrap installs beside the packages that are asked for, in apt's patterns. */
const VARIANT_PACKAGES = {
  essential: ['?essential'],
  apt: ['?essential', 'apt'],
  minbase: ['?essential', '?priority(required)', 'apt'],
} as const satisfies Record<ImageManifest['variant'], readonly string[]>

/** Lists and packages come from our own apt, which knows the host's proxies and credentials; mmdebstrap's does not. */
function withOwnDownloads(apt: Apt): readonly string[] {
  const lists = '"$1/var/lib/apt/lists"'
  const archives = '"$1/var/cache/apt/archives"'
  const packages = `find ${shellWord(apt.archivesDir)} -maxdepth 1 -name '*.deb'`
  return [
    '--skip=update',
    `--setup-hook=mkdir -p ${lists} ${archives}`,
    `--setup-hook=cp -a ${shellWord(apt.listsDir)}/. ${lists}`,
    `--setup-hook=${packages} -exec cp -a --reflink=auto -t ${archives} {} +`,
  ]
}

function shellWord(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

async function configure(root: string, manifest: ImageManifest, sources: string): Promise<void> {
  for (const path of LEFTOVERS) await rm(join(root, path), { recursive: true, force: true })
  const put = async (path: string, content: string, mode = 0o644): Promise<void> => {
    await mkdir(dirname(join(root, path)), { recursive: true })
    await rm(join(root, path), { force: true })
    await writeFile(join(root, path), content)
    await chmod(join(root, path), mode)
  }
  await rm(join(root, 'etc/apt/sources.list'), { force: true })
  await rm(join(root, 'etc/apt/sources.list.d'), { recursive: true, force: true })
  await put('etc/apt/sources.list.d/debian.sources', sources)
  await put('etc/hostname', `${manifest.hostname}\n`)
  await put('etc/machine-id', '') // empty: made anew for each capsule
  await put('etc/resolv.conf', 'nameserver 169.254.0.22\n')
  for (const { name, sudo } of manifest.users) {
    if (sudo) await put(`etc/sudoers.d/${name}`, `${name} ALL=(ALL:ALL) NOPASSWD:ALL\n`, 0o440)
  }
  for (const { path, content, mode } of manifest.files) await put(path, content, Number.parseInt(mode, 8))
  for (const { path, target } of manifest.symlinks) {
    await mkdir(dirname(join(root, path)), { recursive: true })
    await rm(join(root, path), { force: true })
    await symlink(target, join(root, path))
  }
  await settlePasswordDays(join(root, 'etc/shadow'))
}

/** The day a password was last changed would be the day of the build. */
async function settlePasswordDays(path: string): Promise<void> {
  const text = await readFile(path, 'utf8')
  await writeFile(path, text.replace(/^([^:]*:[^:]*):\d+:/gm, '$1:19700:'))
}

async function installedPackages(root: string): Promise<Readonly<Record<string, string>>> {
  const status = await readFile(join(root, 'var/lib/dpkg/status'), 'utf8')
  const packages: Record<string, string> = {}
  for (const stanza of status.split('\n\n')) {
    const name = /^Package: (\S+)$/m.exec(stanza)?.[1]
    const version = /^Version: (\S+)$/m.exec(stanza)?.[1]
    if (name !== undefined && version !== undefined && /^Status: .* installed$/m.test(stanza)) packages[name] = version
  }
  return packages
}

/**
 * What the build itself wrote gets the time of the newest packaged file. Packaged files keep theirs: Python's compiled
 * modules record the time of their source and would otherwise be compiled again at each start.
 */
async function settleTimes(root: string, startedAtSeconds: number): Promise<number> {
  const fresh: string[] = [root]
  let newest = 0
  for await (const { path } of walk(root)) {
    const mtime = Math.floor((await lstat(path)).mtimeMs / 1000)
    if (mtime >= startedAtSeconds) fresh.push(path)
    else newest = Math.max(newest, mtime)
  }
  for (const path of fresh) await lutimes(path, newest, newest)
  return newest
}
