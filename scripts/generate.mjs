// Writes everything that is generated and committed; with --check, fails when a file would change.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './prepare.mjs'

const check = process.argv.includes('--check')
const GENERATED = 'packages/protocol/src/gen'

/** @param {string} command @param {readonly string[]} args */
function run(command, args) {
  const done = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (done.status !== 0) process.exit(done.status ?? 1)
}

/** Protobuf types are generated into a scratch copy, so that a check changes nothing. */
function protobuf() {
  const scratch = mkdtempSync(join(tmpdir(), 'wrenn-generate-'))
  try {
    cpSync(join(root, GENERATED), join(scratch, 'before'), { recursive: true })
    run('npx', ['buf', 'generate'])
    if (!check) return
    const diff = spawnSync('diff', ['-r', join(scratch, 'before'), join(root, GENERATED)], { stdio: 'inherit' })
    if (diff.status !== 0) {
      process.stderr.write('The generated protobuf types are not those of proto/: run `npm run generate` and commit.\n')
      process.exit(1)
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

protobuf()
run('npx', ['buf', 'lint'])
run('node', [
  '--conditions=wrenn-source',
  '--import',
  'tsx',
  'apps/control-plane/src/generate.ts',
  ...(check ? ['--check'] : []),
])
