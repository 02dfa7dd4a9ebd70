// Bundles every app to one file: `npm run build`. Needs no network and no other tool than esbuild and tsc from node_modules.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, rmSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const require = createRequire(import.meta.url)

/** Some CommonJS packages in the bundle call `require` for node's own modules; an ES module has none. */
const requireBanner =
  "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);"

/** `pg` asks for it in a try block and works without. */
const optional = ['pg-native']

const apps = [
  { name: 'control-plane', outfile: 'dist/main.mjs' },
  { name: 'host-agent', outfile: 'dist/main.mjs' },
  { name: 'cli', outfile: 'dist/main.mjs' },
  { name: 'guest-agent', outfile: 'dist/agent.mjs', minify: true },
]

async function bundle({ name, outfile, minify = false }) {
  const startedAt = performance.now()
  const folder = join(root, 'apps', name)
  const target = join(folder, outfile)
  rmSync(dirname(target), { recursive: true, force: true })
  await build({
    entryPoints: [join(folder, 'src/main.ts')],
    outfile: target,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    conditions: ['wrenn-source'],
    mainFields: ['module', 'main'],
    banner: { js: requireBanner },
    sourcemap: minify ? false : 'linked',
    minify,
    external: [...optional, '*.node'],
    logLevel: 'warning',
    absWorkingDir: root,
  })
  report(`apps/${name}/${outfile}`, target, startedAt)
}

/** The terminal's native part; the agent loads it from the folder it lies in. */
function copyPtyModule() {
  const startedAt = performance.now()
  const source = require.resolve(`@lydell/node-pty-linux-${process.arch}/pty.node`)
  const target = join(root, 'apps/guest-agent/dist/pty.node')
  mkdirSync(dirname(target), { recursive: true })
  copyFileSync(source, target)
  report('apps/guest-agent/dist/pty.node', target, startedAt)
}

/** The SDK is published as plain modules with their types. */
function compileSdk() {
  const startedAt = performance.now()
  const tsc = require.resolve('typescript/bin/tsc')
  const run = spawnSync(process.execPath, [tsc, '-b', 'packages/sdk'], { cwd: root, stdio: 'inherit' })
  if (run.status !== 0) process.exit(1)
  report('packages/sdk/build', join(root, 'packages/sdk/build/index.js'), startedAt)
}

function report(name, path, startedAt) {
  const kib = Math.ceil(statSync(path).size / 1024)
  console.log(
    `${name.padEnd(36)} ${String(kib).padStart(6)} KiB ${String(Math.round(performance.now() - startedAt)).padStart(6)} ms`,
  )
}

for (const app of apps) await bundle(app)
copyPtyModule()
compileSdk()
