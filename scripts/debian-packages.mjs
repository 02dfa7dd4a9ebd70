import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'

/**
 * The programs that a Wrenn host needs, with the Debian package that brings each: the one list that the demo and `npm start`
 * install, `wrenn up` asks for and `wrenn doctor` checks. Without an optional one everything works, only less tidily.
 * @type {readonly { program: string, debianPackage: string, isOptional?: boolean }[]}
 */
export const hostPrograms = [
  process.arch === 'arm64'
    ? { program: 'qemu-system-aarch64', debianPackage: 'qemu-system-arm' }
    : { program: 'qemu-system-x86_64', debianPackage: 'qemu-system-x86' },
  { program: 'mmdebstrap', debianPackage: 'mmdebstrap' },
  { program: 'mkfs.btrfs', debianPackage: 'btrfs-progs' },
  { program: 'nft', debianPackage: 'nftables' },
  { program: 'ip', debianPackage: 'iproute2' },
  { program: 'mkfs.ext4', debianPackage: 'e2fsprogs' },
  { program: 'cpio', debianPackage: 'cpio' },
  { program: 'xz', debianPackage: 'xz-utils' },
  { program: 'zstd', debianPackage: 'zstd' },
  { program: 'setfattr', debianPackage: 'attr' },
  { program: 'losetup', debianPackage: 'mount' },
  { program: 'setpriv', debianPackage: 'util-linux' },
  { program: 'nsenter', debianPackage: 'util-linux' },
  { program: 'ps', debianPackage: 'procps' },
  { program: 'perl', debianPackage: 'perl-base' },
  { program: 'skopeo', debianPackage: 'skopeo' },
  { program: 'umoci', debianPackage: 'umoci' },
  { program: 'bwrap', debianPackage: 'bubblewrap' },
  { program: 'conntrack', debianPackage: 'conntrack', isOptional: true },
]

/** @param {readonly { debianPackage: string }[]} programs */
const packagesOf = (programs) => [...new Set(programs.map(({ debianPackage }) => debianPackage))]

/** Brings no program, but the keys that packages of images are checked with; every Debian has it, other distributions do not. */
const KEYRING = 'debian-archive-keyring'

export const debianPackages = [...packagesOf(hostPrograms), KEYRING]
/** Without these a host does not work. */
export const requiredPackages = [...packagesOf(hostPrograms.filter(({ isOptional }) => !isOptional)), KEYRING]

/** What the tests need beside that, other than a PostgreSQL: a browser, peers for taps and connections, and a registry of images. */
const testTools = ['socat', 'python3', 'docker-registry', 'busybox-static']
/** Where distributions give it as something else than a package (Ubuntu: a snap), the tests in a browser are left out, by name. */
const BROWSER = 'chromium'
/** Servers of objects. Where one is not offered, its tests are left out, by name. */
const objectServers = {
  'Ceph RGW': ['radosgw', 'ceph-mon', 'ceph-osd', 'ceph-common'],
  'OpenStack Swift': ['swift-proxy', 'swift-account', 'swift-container', 'swift-object'],
}

/** The oldest PostgreSQL we support, by its major version. */
const OLDEST_POSTGRES = 15

/**
 * What the tests need beside `debianPackages`: a browser, servers of objects, and Debian's own PostgreSQL too, the oldest that we support of those
 * that are installed, else of those that apt offers. Its name differs from release to release.
 * @returns {{ packages: string[], postgres: string | undefined, browser: string | undefined, withoutServers: string[] }}
 */
export function testPackages() {
  const postgres = oldestOf(installedPostgres()) ?? oldestOf(offeredPostgres())
  const browser = missingPackages([BROWSER]).length === 0 || isOffered(BROWSER) ? BROWSER : undefined
  const servers = Object.entries(objectServers)
  const offered = servers.filter(([, names]) => missingPackages(names).every(isOffered))
  const withoutServers = servers.filter((server) => !offered.includes(server)).map(([server]) => server)
  const ofServers = offered.flatMap(([, names]) => names)
  const packages = [...testTools, ...ofServers, browser, postgres].filter((name) => name !== undefined)
  return { packages, postgres, browser, withoutServers }
}

/** @param {string} name */
function isOffered(name) {
  if (!hasPackageLists()) aptGet(['update'])
  const policy = spawnSync('apt-cache', ['policy', name], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } })
  return /^ *Candidate: (?!\(none\))/m.test(policy.stdout ?? '')
}

/**
 * @param {readonly string[]} names of packages, such as `postgresql-17`
 * @returns {string | undefined} the oldest server that we support
 */
export function oldestOf(names) {
  const majors = names.map((name) => Number(/^postgresql-(\d+)$/.exec(name)?.[1]))
  const supported = majors.filter((major) => major >= OLDEST_POSTGRES)
  return supported.length === 0 ? undefined : `postgresql-${Math.min(...supported)}`
}

function installedPostgres() {
  const query = spawnSync('dpkg-query', ['-W', '-f', DPKG_FORMAT, 'postgresql-[0-9]*'], { encoding: 'utf8' })
  return query.error ? [] : [...installedOf(query.stdout)]
}

function offeredPostgres() {
  if (!hasPackageLists()) aptGet(['update'])
  const search = spawnSync('apt-cache', ['pkgnames', 'postgresql-'], { encoding: 'utf8' })
  return search.error ? [] : search.stdout.split('\n')
}

// biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
const DPKG_FORMAT = '${Package} ${db:Status-Abbrev}\n'

/** @param {string} listing */
function installedOf(listing) {
  const lines = listing.split('\n').map((line) => line.split(' '))
  return new Set(lines.flatMap(([name, status]) => (name !== undefined && status?.startsWith('ii') ? [name] : [])))
}

/**
 * @param {readonly string[]} wanted
 * @returns {string[]} those that are not installed
 */
export function missingPackages(wanted = debianPackages) {
  const query = spawnSync('dpkg-query', ['-W', '-f', DPKG_FORMAT, ...wanted], { encoding: 'utf8' })
  if (query.error) return []
  const installed = installedOf(query.stdout)
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
