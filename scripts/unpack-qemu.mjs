// node scripts/unpack-qemu.mjs <suite> [folder]
// Unpacks QEMU of a Debian suite, such as trixie or sid, beside the one that is installed, and prints the path of a program
// that runs it: for WRENN_QEMU, for tests and for trying an upgrade before it is made. Nothing of the host changes; apt keeps
// its lists and downloads below the folder. The program brings its own libraries, so any suite runs on any host.
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
const PROGRAM = 'qemu-system-x86_64'
const DEFAULT_MIRROR = 'http://deb.debian.org/debian'
const [suite, folder = '/var/cache/wrenn-qemu'] = process.argv.slice(2)

/** @param {string} message @returns {never} */
function fail(message) {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}

/** @param {string} command @param {readonly string[]} args */
function run(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 2 ** 26 })
  if (status !== 0) fail(`${command} ${args.at(-1)}: ${error?.message ?? stderr.trim().split('\n').at(-1)}`)
  return stdout
}

/** The mirror that the host itself uses. */
function mirror() {
  const { stdout } = spawnSync('apt-get', ['indextargets', '--format', '$(REPO_URI)'], { encoding: 'utf8' })
  return stdout?.split('\n').find((uri) => /\/debian\/?$/.test(uri)) ?? DEFAULT_MIRROR
}

/** @param {string} dir */
function download(dir) {
  mkdirSync(join(dir, 'lists/partial'), { recursive: true })
  mkdirSync(join(dir, 'archives/partial'), { recursive: true })
  writeFileSync(join(dir, 'sources.list'), `deb [signed-by=${KEYRING}] ${mirror()} ${suite} main\n`)
  writeFileSync(join(dir, 'status'), '')
  const settings = {
    'Dir::Etc::SourceList': join(dir, 'sources.list'),
    'Dir::Etc::SourceParts': '/nonexistent',
    'Dir::State::Lists': join(dir, 'lists'),
    'Dir::State::status': join(dir, 'status'),
    'Dir::Cache': dir,
    'Dir::Cache::archives': join(dir, 'archives'),
    'APT::Architecture': 'amd64',
    'APT::Sandbox::User': 'root',
    'Debug::NoLocking': '1',
  }
  const options = Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${value}`])
  run('apt-get', [...options, '-qq', 'update'])
  run('apt-get', [...options, '-qq', '-y', '--no-install-recommends', '--download-only', 'install', 'qemu-system-x86'])
}

/** @param {string} dir */
function unpack(dir) {
  for (const name of readdirSync(join(dir, 'archives'))) {
    if (name.endsWith('.deb')) run('dpkg-deb', ['-x', join(dir, 'archives', name), join(dir, 'root')])
  }
  for (const used of ['lists', 'archives', 'pkgcache.bin', 'srcpkgcache.bin']) {
    rmSync(join(dir, used), { recursive: true, force: true })
  }
}

/** @param {string} dir with the unpacked `root`, under whatever name it has when the program is run */
function writeProgram(dir) {
  const loader = ['usr/lib64', 'lib64'].find((path) => existsSync(join(dir, 'root', path, 'ld-linux-x86-64.so.2')))
  if (loader === undefined) fail(`QEMU of ${suite} came without a dynamic loader.`)
  const data = ['usr/share/qemu', 'usr/share/seabios'].map((path) => `-L "$root/${path}"`)
  const script = `#!/bin/sh
root=$(dirname "$0")/root
exec "$root/${loader}/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" \\
  "$root/usr/bin/qemu-system-x86_64" ${data.join(' ')} "$@"
`
  writeFileSync(join(dir, PROGRAM), script)
  chmodSync(join(dir, PROGRAM), 0o755)
}

if (!suite || !/^[a-z-]+$/.test(suite)) fail('usage: unpack-qemu.mjs <suite> [folder]')
const home = join(resolve(folder), suite)
if (!existsSync(join(home, PROGRAM))) {
  const draft = `${home}.${process.pid}`
  process.on('exit', () => rmSync(draft, { recursive: true, force: true }))
  download(draft)
  unpack(draft)
  writeProgram(draft)
  if (!existsSync(home)) renameSync(draft, home) // else another run was first
}
process.stdout.write(`${join(home, PROGRAM)}\n`)
