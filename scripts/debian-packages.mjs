import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'

/** What a Wrenn host needs from Debian: the emulator, the image builder, the pool's file system, networks and small tools. */
export const debianPackages = [
  'qemu-system-x86',
  'mmdebstrap',
  'debian-archive-keyring',
  'btrfs-progs',
  'nftables',
  'iproute2',
  'e2fsprogs',
  'cpio',
  'xz-utils',
  'zstd',
  'attr',
  'util-linux',
  'procps',
]

/** What the tests need beside that: a browser, the oldest PostgreSQL we support, and peers for taps and connections. */
export const testPackages = ['chromium', 'postgresql-15', 'socat', 'python3', 'conntrack']

/**
 * @param {readonly string[]} wanted
 * @returns {string[]} those that are not installed
 */
export function missingPackages(wanted = debianPackages) {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
  const query = spawnSync('dpkg-query', ['-W', '-f', '${Package} ${db:Status-Abbrev}\n', ...wanted], {
    encoding: 'utf8',
  })
  if (query.error) return []
  const installed = new Set()
  for (const line of query.stdout.split('\n')) {
    const [name, status] = line.split(' ')
    if (status?.startsWith('ii')) installed.add(name)
  }
  return wanted.filter((name) => !installed.has(name))
}

/** @param {readonly string[]} names */
export function aptLine(names) {
  return `apt-get install -y --no-install-recommends ${names.join(' ')}`
}

function hasPackageLists() {
  try {
    return readdirSync('/var/lib/apt/lists').some((name) => name.includes('_Packages'))
  } catch {
    return false
  }
}

/** @param {readonly string[]} args */
function aptGet(args) {
  const run = spawnSync('apt-get', ['-q', ...args], {
    stdio: ['ignore', 2, 2],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  })
  return run.status === 0
}

/**
 * Installs packages with apt-get; its output goes to stderr.
 * @param {readonly string[]} names
 */
export function installPackages(names) {
  const install = ['install', '-y', '--no-install-recommends', ...names]
  if (hasPackageLists() && aptGet(install)) return
  // No lists yet, or lists that name versions the archive no longer has.
  if (aptGet(['update']) && aptGet(install)) return
  throw new Error(`apt-get could not install ${names.join(' ')}.`)
}
