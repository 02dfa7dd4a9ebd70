import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { aptLine, debianPackages, installPackages, missingPackages, testPackages } from './debian-packages.mjs'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))
const MIN_NODE = [20, 19]
const bundles = [
  'apps/cli/dist/main.mjs',
  'apps/control-plane/dist/main.mjs',
  'apps/control-plane/dist/argon2.node',
  'apps/control-plane/dist/dashboard.pack',
  'apps/host-agent/dist/main.mjs',
  'apps/host-agent/dist/zstd.node',
  'apps/guest-agent/dist/agent.mjs',
]

/** @param {string} text */
export function say(text) {
  process.stderr.write(`${text}\n`)
}

/** @param {string} text */
export function fail(text) {
  say(`error: ${text}`)
  process.exit(1)
}

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const [wantMajor = 0, wantMinor = 0] = MIN_NODE
  if (major < wantMajor || (major === wantMajor && minor < wantMinor)) {
    fail(`Wrenn needs Node.js ${MIN_NODE.join('.')} or newer; this is ${process.versions.node}.`)
  }
}

/** @param {string} path */
function modifiedAt(path) {
  return existsSync(path) ? statSync(path).mtimeMs : 0
}

function installModules() {
  const lockfile = join(root, 'package-lock.json')
  const installed = join(root, 'node_modules/.package-lock.json')
  if (modifiedAt(installed) >= modifiedAt(lockfile)) return
  say('› installing npm packages (npm ci)')
  const run = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: root, stdio: ['ignore', 2, 2] })
  if (run.status !== 0) fail('`npm ci` failed; its output is above.')
}

/** Linked to libraries of the machine, as distributions build it: it would miss them, and more, in a guest. */
function isNodeOfDistribution() {
  return Object.entries(process.config.variables).some(
    ([name, value]) => name.startsWith('node_shared') && value === true,
  )
}

const guestRuntime = join(root, 'apps/guest-agent/runtime')

/** What the guest agent runs with: a distribution's Node.js may also refuse to give up rights. @returns {string} */
export function guestNode() {
  if (!isNodeOfDistribution()) return process.execPath
  return join(guestRuntime, `node_modules/node-linux-${process.arch}/bin/node`)
}

/** Guests run the machine's Node.js where that can stand alone; else one that is installed for them, beside the workspace. */
function installGuestNode() {
  const home = guestRuntime
  const installed = join(home, 'node_modules/.package-lock.json')
  if (!isNodeOfDistribution() || modifiedAt(installed) >= modifiedAt(join(home, 'package-lock.json'))) return
  say("› installing a Node.js for guests, which this machine's own is not made for (npm ci)")
  const run = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--ignore-scripts'], {
    cwd: home,
    stdio: ['ignore', 2, 2],
  })
  if (run.status !== 0) fail('`npm ci` in apps/guest-agent/runtime failed; its output is above.')
}

/** @param {readonly string[]} wanted */
function installDebianPackages(wanted) {
  const missing = missingPackages(wanted)
  if (missing.length === 0) return
  if (process.getuid?.() !== 0) fail(`Debian packages are missing. As root, run: ${aptLine(missing)}`)
  say(`› installing Debian packages: ${missing.join(' ')}`)
  try {
    installPackages(missing)
  } catch (error) {
    fail(error instanceof Error ? error.message : String(error))
  }
}

function packagesForTests() {
  const { packages, postgres, browser, withoutServers } = testPackages()
  if (browser === undefined) say('› apt offers no chromium: tests in a browser are left out')
  for (const server of withoutServers) say(`› apt offers no ${server}: tests on that object store are left out`)
  say(
    postgres === undefined
      ? '› apt offers no PostgreSQL from 15 on: tests that want an older one than the embedded run on the embedded one alone'
      : `› tests run on ${postgres} and on the embedded PostgreSQL`,
  )
  return packages
}

/** @param {string} dir */
function newestIn(dir) {
  let newest = 0
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name)
    newest = Math.max(newest, entry.isDirectory() ? newestIn(path) : statSync(path).mtimeMs)
  }
  return newest
}

function newestSource() {
  const folders = ['apps', 'packages'].flatMap((kind) =>
    readdirSync(join(root, kind)).map((name) => join(root, kind, name)),
  )
  const sources = folders.map((folder) => join(folder, 'src')).filter((folder) => existsSync(folder))
  return Math.max(
    ...sources.map(newestIn),
    ...folders.map((folder) => modifiedAt(join(folder, 'package.json'))),
    modifiedAt(join(root, 'package-lock.json')),
    modifiedAt(join(root, 'scripts/build.mjs')),
  )
}

function build() {
  const oldest = Math.min(...bundles.map((path) => modifiedAt(join(root, path))))
  if (oldest > newestSource()) return
  say('› building (npm run build)')
  const run = spawnSync(process.execPath, [join(root, 'scripts/build.mjs')], { cwd: root, stdio: ['ignore', 2, 2] })
  if (run.status !== 0) fail('The build failed; its output is above.')
}

/**
 * Everything between a fresh checkout and a CLI that runs: does only what is missing, and says what it does.
 * @param {{ forTests?: boolean }} options
 */
export function prepare({ forTests = false } = {}) {
  checkNode()
  installModules()
  installGuestNode()
  installDebianPackages(forTests ? [...debianPackages, ...packagesForTests()] : debianPackages)
  build()
}

/**
 * Runs `wrenn` with our terminal and ends as it ends.
 * @param {readonly string[]} args
 */
export function runWrenn(args) {
  const child = spawn(process.execPath, [join(root, 'apps/cli/bin/wrenn.mjs'), ...args], { stdio: 'inherit' })
  // ^C reaches the child from the terminal itself; a SIGTERM reaches only us.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  child.once('error', (error) => fail(error.message))
  child.once('exit', (code, signal) => process.exit(signal ? 1 : (code ?? 1)))
}
