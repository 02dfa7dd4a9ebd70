// Writes everything that is generated and committed; with --check, fails when a file would change.
import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './prepare.mjs'

const check = process.argv.includes('--check')
/** Folders of generated protobuf types, each with what says how. */
const generated = [
  { folder: 'packages/protocol/src/gen', template: 'buf.gen.yaml' },
  { folder: 'packages/testkit/src/otlp/gen', template: 'buf.gen.otlp.yaml' },
]

/** @param {string} command @param {readonly string[]} args */
function run(command, args) {
  const done = spawnSync(command, args, { cwd: root, stdio: 'inherit' })
  if (done.status !== 0) process.exit(done.status ?? 1)
}

/**
 * Protobuf types are compared with a copy, so that a check tells of a change.
 * @param {{ folder: string, template: string }} target
 */
function protobuf({ folder, template }) {
  const scratch = mkdtempSync(join(tmpdir(), 'wrenn-generate-'))
  try {
    cpSync(join(root, folder), join(scratch, 'before'), { recursive: true })
    run('npx', ['buf', 'generate', '--template', template])
    if (!check) return
    const diff = spawnSync('diff', ['-r', join(scratch, 'before'), join(root, folder)], { stdio: 'inherit' })
    if (diff.status !== 0) {
      process.stderr.write(`${folder} is not what ${template} gives: run \`npm run generate\` and commit.\n`)
      process.exit(1)
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

for (const target of generated) protobuf(target)
run('npx', ['buf', 'lint'])
run('node', [
  '--conditions=wrenn-source',
  '--import',
  'tsx',
  'apps/control-plane/src/generate.ts',
  ...(check ? ['--check'] : []),
])
