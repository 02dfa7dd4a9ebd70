// `npm test`: sets up what is missing, then every gate and every suite, and says what it does as it does it.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { fail, prepare, root, say } from './prepare.mjs'

const gates = [
  ['format and lint', 'npx', ['biome', 'check', '--error-on-warnings', '.']],
  ['types', 'npx', ['tsc', '-b']],
  ['types of suites outside the packages', 'npx', ['tsc', '-p', 'tsconfig.tests.json']],
  ['dependency direction', 'npx', ['depcruise', 'apps', 'packages', '--config', '.dependency-cruiser.cjs']],
  ['dead code', 'npx', ['knip', '--no-config-hints']],
  ['generated files', 'node', ['scripts/generate.mjs', '--check']],
  ['documentation links', 'node', ['scripts/check-docs.mjs']],
]
const suites = ['unit', 'conformance', 'e2e', 'chaos']

const wanted = process.argv.slice(2)
const started = Date.now()
const counts = { passed: 0, failed: 0, skipped: 0 }
/** One line for each test that failed, told at the very end, so that a log that was cut still tells them. */
const failedTests = []
const MAX_LINE_CHARS = 400
const nothingRan = { testResults: [], numPassedTests: 0, numFailedTests: 0, numPendingTests: 0 }

/** @param {string} name @param {string} command @param {readonly string[]} args */
function step(name, command, args) {
  say(`\n› ${name}: ${command} ${args.join(' ')}`)
  const since = Date.now()
  const done = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  say(`${done.status === 0 ? '✓' : '✗'} ${name} (${((Date.now() - since) / 1000).toFixed(1)} s)`)
  return done.status === 0
}

/** @param {string} suite @param {string} scratch */
function runSuite(suite, scratch) {
  const report = join(scratch, `${suite}.json`)
  const ok = step(`${suite} tests`, 'npx', [
    'vitest',
    'run',
    '--project',
    suite,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
  ])
  const result = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : nothingRan
  const failures = result.testResults.flatMap(failuresOf)
  if (!ok && failures.length === 0) failures.push(`${suite}: not a test but what is around them; see its output above`)
  failedTests.push(...failures)
  counts.passed += result.numPassedTests
  counts.failed += result.numFailedTests
  counts.skipped += result.numPendingTests
  return ok
}

/** A file can fail without a failed test: while it is loaded, or in a hook. */
function failuresOf({ name, status, message, assertionResults }) {
  const file = relative(root, name)
  const failed = assertionResults.filter((test) => test.status === 'failed')
  if (failed.length === 0 && status === 'failed') return [oneLine(file, 'the file itself', message)]
  return failed.map(({ ancestorTitles, title, failureMessages }) =>
    oneLine(file, [...ancestorTitles, title].join(' > '), failureMessages[0]),
  )
}

/** @param {string} file @param {string} title @param {string | undefined} error */
function oneLine(file, title, error = 'no message') {
  // Vitest reports a test that ran out of time by the stack it kept, not by a message.
  const [first] = stripVTControlCharacters(error).replace('STACK_TRACE_ERROR', 'timed out').trim().split('\n')
  return `${file}: ${title}: ${first}`.slice(0, MAX_LINE_CHARS)
}

prepare({ forTests: true })
const scratch = mkdtempSync(join(tmpdir(), 'wrenn-test-'))
const failures = []
try {
  for (const [name, command, args] of gates) {
    if (wanted.length > 0 && !wanted.includes('gates')) break
    if (!step(name, command, args)) failures.push(name)
  }
  for (const suite of suites) {
    if (wanted.length > 0 && !wanted.includes(suite)) continue
    if (!runSuite(suite, scratch)) failures.push(`${suite} tests`)
  }
} finally {
  rmSync(scratch, { recursive: true, force: true })
}

for (const line of failedTests) say(`✗ ${line}`)
say(`\n${((Date.now() - started) / 60_000).toFixed(1)} minutes`)
process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`)
if (failures.length > 0) fail(`not passed: ${failures.join(', ')}`)
