// Bundles every app to one file: `npm run build`. Needs no network and no other tool than esbuild and tsc from node_modules.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { buildDashboard } from './dashboard.mjs'

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
  { name: 'host-agent', entry: 'src/filter/main.ts', outfile: 'dist/egress-filter.mjs' },
  { name: 'host-agent', entry: 'src/host/loader/main.ts', outfile: 'dist/memory-loader.mjs' },
  { name: 'host-agent', entry: 'src/host/images/oci/fetcher.ts', outfile: 'dist/image-fetcher.mjs' },
  { name: 'cli', outfile: 'dist/main.mjs' },
  { name: 'guest-agent', outfile: 'dist/agent.mjs', minify: true },
  { name: 'guest-agent', entry: 'src/interpreter/main.ts', outfile: 'dist/interpreter.mjs', minify: true },
]

/**
 * Makes files in a folder beside that of `target`, then renames each into place: whoever runs what is there, or starts it at
 * this moment, finds the old file or the new one, never none and never half of one.
 */
async function replaceFiles(target, make) {
  const dist = dirname(target)
  const beside = `${dist}.building-${process.pid}`
  try {
    mkdirSync(beside, { recursive: true })
    await make(join(beside, basename(target)))
    mkdirSync(dist, { recursive: true })
    // Source maps sort after their bundles; they go first, so that a new bundle never meets an old map.
    for (const name of readdirSync(beside).sort().reverse()) renameSync(join(beside, name), join(dist, name))
  } finally {
    rmSync(beside, { recursive: true, force: true })
  }
}

/** The passwords' native part, by the name that its package asks for. The control plane loads it from the folder it lies in. */
const argon2 = { package: `@node-rs/argon2-linux-${process.arch}-gnu`, file: 'argon2.node' }

const argon2BesideBundle = {
  name: 'argon2-beside-bundle',
  setup: ({ onResolve }) => {
    onResolve({ filter: new RegExp(`^${argon2.package}$`) }, () => ({ path: `./${argon2.file}`, external: true }))
    // Those for other machines are never loaded; npm 9 installs the one for musl too, which a bundle cannot hold.
    onResolve({ filter: /^@node-rs\/argon2-/ }, ({ path }) =>
      path.startsWith(argon2.package) ? undefined : { path, external: true },
    )
  },
}

async function bundle({ name, entry = 'src/main.ts', outfile, minify = false }) {
  const startedAt = performance.now()
  const folder = join(root, 'apps', name)
  const target = join(folder, outfile)
  await replaceFiles(target, (path) => bundleTo(path, join(folder, entry), minify))
  report(`apps/${name}/${outfile}`, target, startedAt)
}

async function bundleTo(outfile, entry, minify) {
  await build({
    entryPoints: [entry],
    outfile,
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
    plugins: [argon2BesideBundle],
    logLevel: 'warning',
    absWorkingDir: root,
  })
}

/** The agent loads the terminal's native part from the folder it lies in, too. */
const natives = [
  { source: `@mongodb-js/zstd-linux-${process.arch}-gnu`, target: 'apps/host-agent/dist/zstd.node' },
  { source: `@lydell/node-pty-linux-${process.arch}/pty.node`, target: 'apps/guest-agent/dist/pty.node' },
  { source: argon2.package, target: `apps/control-plane/dist/${argon2.file}` },
]

async function copyNative({ source, target }) {
  const startedAt = performance.now()
  const path = join(root, target)
  await replaceFiles(path, (copy) => copyFileSync(require.resolve(source), copy))
  report(target, path, startedAt)
}

/** The SDK is published as plain modules with their types. */
function compileSdk() {
  const startedAt = performance.now()
  const tsc = require.resolve('typescript/bin/tsc')
  const run = spawnSync(process.execPath, [tsc, '-b', 'packages/sdk'], { cwd: root, stdio: 'inherit' })
  if (run.status !== 0) process.exit(1)
  report('packages/sdk/build', join(root, 'packages/sdk/build/index.js'), startedAt)
}

/** One file beside the control plane, which serves it. */
async function packDashboard() {
  const startedAt = performance.now()
  const target = join(root, 'apps/control-plane/dist/dashboard.pack')
  await replaceFiles(target, (path) => buildDashboard(path, target))
  report('apps/control-plane/dist/dashboard.pack', target, startedAt)
}

function report(name, path, startedAt) {
  const kib = Math.ceil(statSync(path).size / 1024)
  console.log(
    `${name.padEnd(36)} ${String(kib).padStart(6)} KiB ${String(Math.round(performance.now() - startedAt)).padStart(6)} ms`,
  )
}

for (const app of apps) await bundle(app)
for (const native of natives) await copyNative(native)
compileSdk()
await packDashboard()
