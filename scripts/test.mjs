// `npm test`: sets up what is missing, then every gate and every suite, and says what it does as it does it.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fail, prepare, root, say } from './prepare.mjs'

const gates = [
  ['format and lint', 'npx', ['biome', 'check', '--error-on-warnings', '.']],
  ['types', 'npx', ['tsc', '-b']],
  ['dependency direction', 'npx', ['depcruise', 'apps', 'packages', '--config', '.dependency-cruiser.cjs']],
  ['dead code', 'npx', ['knip', '--no-config-hints']],
  ['generated files', 'node', ['scripts/generate.mjs', '--check']],
  ['documentation links', 'node', ['scripts/check-docs.mjs']],
]
const suites = ['unit', 'conformance', 'e2e']

const wanted = process.argv.slice(2)
const started = Date.now()
const counts = { passed: 0, failed: 0, skipped: 0 }

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
  const result = JSON.parse(readFileSync(report, 'utf8'))
  counts.passed += result.numPassedTests
  counts.failed += result.numFailedTests
  counts.skipped += result.numPendingTests
  return ok
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

say(`\n${((Date.now() - started) / 60_000).toFixed(1)} minutes`)
process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`)
if (failures.length > 0) fail(`not passed: ${failures.join(', ')}`)
