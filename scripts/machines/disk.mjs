import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fail, say } from '../prepare.mjs'

/** What a fresh server has, and what the demo needs of npm; the rest is what the demo itself must install. */
const PACKAGES = [
  'systemd',
  'systemd-sysv',
  'libpam-systemd',
  'udev',
  'dbus',
  'linux-image-cloud-amd64',
  'nodejs',
  'npm',
  'ca-certificates',
  'curl',
  'iproute2',
  'git',
  'sudo',
  'procps',
  'kmod',
  'ifupdown',
  'isc-dhcp-client',
  'python3',
  'debian-archive-keyring',
]
const DISK_BYTES = '20G'
const DEFAULT_MIRROR = 'http://deb.debian.org/debian'

/** Where the luggage disk is mounted in the machine. */
const UNIT = `[Unit]
After=network-online.target networking.service dbus.service
Wants=network-online.target
[Service]
Environment=HOME=/root NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
ExecStart=/bin/bash -c "mkdir -p /mnt/luggage; mount -o ro LABEL=luggage /mnt/luggage; bash /mnt/luggage/job.sh 2>&1 | tee /root/job.log >/dev/ttyS0; systemctl poweroff"
[Install]
WantedBy=multi-user.target
`

/** @param {string} command @param {readonly string[]} args */
export function run(command, args) {
  const { status, stderr, stdout, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 26 })
  if (status !== 0) fail(`${command} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`)
  return stdout
}

/** The mirror that this machine itself uses. */
function mirror() {
  const { stdout } = spawnSync('apt-get', ['indextargets', '--format', '$(REPO_URI)'], { encoding: 'utf8' })
  return stdout?.split('\n').find((uri) => /\/debian\/?$/.test(uri)) ?? DEFAULT_MIRROR
}

/**
 * Makes `<dir>/{disk.img,vmlinuz,initrd}` of a Debian release, unless they are there; PACKAGES_TOO names more packages.
 * @param {string} release @param {string} dir
 */
export function ensureDisk(release, dir) {
  const disk = join(dir, 'disk.img')
  if (existsSync(disk)) return
  say(`› ${release}: making its disk (mmdebstrap)`)
  const root = join(dir, 'root')
  rmSync(root, { recursive: true, force: true })
  const tar = join(dir, 'root.tar')
  const line = `deb ${mirror()} ${release} main`
  run('mmdebstrap', ['--quiet', '--variant=apt', `--include=${PACKAGES.join(',')}`, release, tar, line])
  mkdirSync(root)
  run('tar', ['-xf', tar, '-C', root])
  rmSync(tar)
  configure(root, release)
  for (const [prefix, name] of [
    ['vmlinuz-', 'vmlinuz'],
    ['initrd.img-', 'initrd'],
  ]) {
    const found = readdirSync(join(root, 'boot')).find((entry) => entry.startsWith(prefix))
    if (found === undefined) fail(`${release} came without a ${name}.`)
    run('cp', [join(root, 'boot', found), join(dir, name)])
  }
  run('truncate', ['-s', DISK_BYTES, `${disk}.tmp`])
  run('mkfs.ext4', ['-q', '-d', root, `${disk}.tmp`])
  renameSync(`${disk}.tmp`, disk)
  rmSync(root, { recursive: true })
}

/**
 * What Debian's installer writes: without the security archive a machine would get an older kernel for its guests, too.
 * @param {string} release
 */
function sources(release) {
  const stanza = (uri, suites) =>
    `Types: deb\nURIs: ${uri}\nSuites: ${suites}\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n`
  const security = mirror().replace(/\/debian\/?$/, '/debian-security')
  return `${stanza(mirror(), `${release} ${release}-updates`)}\n${stanza(security, `${release}-security`)}`
}

/** @param {string} root @param {string} release */
function configure(root, release) {
  const npmrc = join(homedir(), '.npmrc')
  if (existsSync(npmrc)) run('cp', [npmrc, join(root, 'root/.npmrc')])
  run('cp', ['/etc/ssl/certs/ca-certificates.crt', join(root, 'etc/ssl/certs/ca-certificates.crt')])
  const files = {
    'etc/network/interfaces': 'auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n',
    'etc/resolv.conf': 'nameserver 10.0.2.3\n',
    'etc/hostname': 'machine\n',
    'etc/hosts': '127.0.0.1 localhost machine\n',
    'etc/systemd/system/job.service': UNIT,
    'etc/apt/sources.list.d/debian.sources': sources(release),
  }
  rmSync(join(root, 'etc/apt/sources.list'), { force: true })
  for (const [path, text] of Object.entries(files)) writeFileSync(join(root, path), text)
  run('chroot', [root, 'systemctl', 'enable', '-q', 'job.service'])
}
