// `npm test`: sets up what is missing, then every gate and every suite, and says what it does as it does it.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir, totalmem } from 'node:os'
import { join, relative } from 'node:path'
import { createInterface } from 'node:readline'
import { stripVTControlCharacters } from 'node:util'
import { fail, guestNode, prepare, root, say } from './prepare.mjs'

/** Options of Node that run the packages from their sources. */
const fromSources = ['--conditions=wrenn-source', '--import', 'tsx']

/** Each list runs beside the others, in its own order: the types of suites need those of the packages. */
const gateLists = [
  [
    ['types', 'tsc', ['-b']],
    ['types of suites outside the packages', 'tsc', ['-p', 'tsconfig.tests.json']],
    ['types of the dashboard', 'npm', ['run', '--silent', 'check', '--workspace', 'apps/dashboard']],
  ],
  [
    ['format and lint', 'biome', ['check', '--error-on-warnings', '.']],
    ['dependency direction', 'depcruise', ['apps', 'packages', '--config', '.dependency-cruiser.cjs']],
    ['dead code', 'knip', ['--no-config-hints']],
    ['documentation links', 'node', ['scripts/check-docs.mjs']],
    ['documentation of settings', 'node', [...fromSources, 'scripts/check-settings.mjs']],
    ['documentation of exports', 'node', ['scripts/check-doc-comments.mjs']],
  ],
]
/** Writes into the sources before it compares, so that nothing may read them meanwhile. */
const lastGate = ['generated files', 'node', ['scripts/generate.mjs', '--check']]

/**
 * Started in this order as lanes become free. The host of `e2e` makes its images from nothing, and those of `chaos` and of the host
 * agent's conformance start with them; the others are put so that all lanes end at about the same time.
 */
const suites = [
  { name: 'e2e' },
  { name: 'conformance', folder: 'packages' },
  { name: 'unit' },
  { name: 'chaos' },
  { name: 'conformance', folder: 'apps/host-agent' },
]
/** Its unit tests run in the process that they test, so they need the Node.js that it gets in guests. */
const GUEST_AGENT = 'apps/guest-agent'

/** Suites have names and ranges of their own on the host. With more at once, guests wait seconds for one of two cores. */
const MAX_LANES = 2
const LANE_BYTES = 4 * 2 ** 30
const fitting = Math.min(MAX_LANES, Math.floor(totalmem() / LANE_BYTES))
const lanes = availableParallelism() > 1 ? Math.max(1, fitting) : 1

const wanted = process.argv.slice(2)
const started = Date.now()
const counts = { passed: 0, failed: 0, skipped: 0 }
/** One line for each test that failed, told at the very end, so that a log that was cut still tells them. */
const failedTests = []
const failures = []
const MAX_MORE_LINES = 12
const MAX_LINE_CHARS = 1_000
/** How Vitest begins to tell a failure that is no test's. It is in no report, so that it is told again. */
const AROUND_TESTS = /Startup Error|Unhandled Error|error during close|close timed out/
const MAX_TOLD_LINES = 40
const OUTPUT_GRACE_MS = 5_000
const nothingRan = { testResults: [], numPassedTests: 0, numFailedTests: 0, numPendingTests: 0 }

/** Started directly: a signal ends `npx` and leaves what it has started. */
const tools = join(root, 'node_modules/.bin')
const SCRATCH = /^wrenn-test-(\d+)-/
const running = new Set()
/** The signal that ends this run. */
let interrupted

/**
 * @param {string} name @param {string} command @param {readonly string[]} args
 * @param {{ prefix?: string, env?: Record<string, string>, onLine?: (line: string) => void }} options
 */
async function step(name, command, args, { prefix = '', env = {}, onLine = () => {} } = {}) {
  if (interrupted !== undefined) return false
  say(`\n› ${name}: ${command} ${args.join(' ')}`)
  const since = Date.now()
  const child = spawn(command, args, {
    cwd: root,
    env: { ...process.env, ...env, PATH: `${tools}:${process.env.PATH}` },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  for (const stream of [child.stdout, child.stderr]) {
    createInterface(stream).on('line', (line) => {
      say(`${prefix}${line}`)
      onLine(line)
    })
  }
  const code = await new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', resolve)
    // What it has left behind may have its output open.
    child.once('exit', (status) => setTimeout(() => resolve(status), OUTPUT_GRACE_MS).unref())
  })
  running.delete(child)
  say(`${code === 0 ? '✓' : '✗'} ${name} (${((Date.now() - since) / 1000).toFixed(1)} s)`)
  if (code !== 0) failures.push(name)
  return code === 0
}

async function runGates() {
  await Promise.all(
    gateLists.map(async (list) => {
      for (const [name, command, args] of list) await step(name, command, args, { prefix: `${name} | ` })
    }),
  )
  await step(...lastGate)
}

/** @typedef {{ name: string, folder?: string, without?: string, node?: string }} Suite */

/** @param {readonly Suite[]} wanted @returns {Suite[]} */
function withGuestNode(wanted) {
  const node = guestNode()
  if (node === process.execPath) return [...wanted]
  return wanted.flatMap((suite) =>
    suite.name === 'unit'
      ? [
          { ...suite, without: GUEST_AGENT },
          { ...suite, folder: GUEST_AGENT, node },
        ]
      : [suite],
  )
}

/** @param {Suite} suite @param {string} scratch @param {boolean} isAlone */
async function runSuite({ name, folder, without, node }, scratch, isAlone) {
  const title = folder === undefined ? `${name} tests` : `${name} tests of ${folder}`
  const report = join(scratch, `${title.replace(/\W/g, '-')}.json`)
  const [program, ...first] = node === undefined ? ['vitest'] : [node, join(root, 'node_modules/vitest/vitest.mjs')]
  const args = [...first, 'run', '--project', name, ...(folder === undefined ? [] : [`${folder}/`])]
  if (without !== undefined) args.push('--exclude', `${without}/**`)
  /** @type {string[]} */
  const around = []
  /** @param {string} line */
  const onLine = (line) => {
    const text = stripVTControlCharacters(line)
    const isTold = around.length === 0 ? AROUND_TESTS.test(text) : around.length < MAX_TOLD_LINES
    if (isTold) around.push(text.slice(0, MAX_LINE_CHARS))
  }
  const ok = await step(
    title,
    program,
    [...args, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
    {
      prefix: isAlone ? '' : `${name} | `,
      env: { WRENN_TEST_IMAGES: join(scratch, 'images') },
      onLine,
    },
  )
  const result = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : nothingRan
  const failed = result.testResults.flatMap(failuresOf)
  if (!ok && failed.length === 0) {
    failed.push([`${title}: not a test but what is around them:`, ...around].join('\n    '))
  }
  failedTests.push(...failed)
  counts.passed += result.numPassedTests
  counts.failed += result.numFailedTests
  counts.skipped += result.numPendingTests
}

/** @param {typeof suites} list @param {string} scratch */
async function runSuites(list, scratch) {
  const isAlone = lanes === 1 || list.length === 1
  const waiting = [...list]
  const lane = async () => {
    for (let suite = waiting.shift(); suite !== undefined && interrupted === undefined; suite = waiting.shift()) {
      await runSuite(suite, scratch, isAlone)
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
}

/** A file can fail without a failed test: while it is loaded, or in a hook. */
function failuresOf({ name, status, message, assertionResults }) {
  const file = relative(root, name)
  const failed = assertionResults.filter((test) => test.status === 'failed')
  if (failed.length === 0 && status === 'failed') return [told(file, 'the file itself', message)]
  return failed.map(({ ancestorTitles, title, failureMessages }) =>
    told(file, [...ancestorTitles, title].join(' > '), failureMessages[0]),
  )
}

/**
 * What it says, and below it what a property found or where in the test it was.
 * @param {string} file @param {string} title @param {string | undefined} error
 */
function told(file, title, error = 'no message') {
  // Vitest reports a test that ran out of time by the stack it kept, not by a message.
  const lines = stripVTControlCharacters(error).replace('STACK_TRACE_ERROR', 'timed out').trim().split('\n')
  const own = lines.slice(1).filter((line) => !/node_modules|node:internal/.test(line))
  const more = own.slice(0, MAX_MORE_LINES).map((line) => `    ${line.trim()}`)
  return [`${file}: ${title}: ${lines[0]}`, ...more].map((line) => line.slice(0, MAX_LINE_CHARS)).join('\n')
}

/** What a run that was killed left: its images are large. */
function sweepScratch() {
  for (const name of readdirSync(tmpdir())) {
    const pid = SCRATCH.exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(tmpdir(), name), { recursive: true, force: true })
  }
}

/** A terminal's ^C reaches the suites too; another signal reaches only us. */
function endOnSignal() {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      interrupted = signal
      for (const child of running) child.kill(signal)
    })
  }
}

prepare({ forTests: true })
sweepScratch()
endOnSignal()
const scratch = mkdtempSync(join(tmpdir(), `wrenn-test-${process.pid}-`))
try {
  if (wanted.length === 0 || wanted.includes('gates')) await runGates()
  else await step('types', 'tsc', ['-b']) // suites start what it compiles
  await runSuites(withGuestNode(suites.filter(({ name }) => wanted.length === 0 || wanted.includes(name))), scratch)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

for (const line of failedTests) say(`✗ ${line}`)
say(`\n${((Date.now() - started) / 60_000).toFixed(1)} minutes`)
process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`)
if (interrupted !== undefined) fail(`ended by ${interrupted}`)
if (failures.length > 0) fail(`not passed: ${failures.join(', ')}`)
