// Builds the dashboard and packs it into one file, which the control plane reads at its start (apps/control-plane/src/http/dashboard).
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { basename, dirname, extname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const app = join(root, 'apps/dashboard')

/** Whatever the build reads: one that is newer than its result makes it anew. */
const inputs = [
  'apps/dashboard/src',
  'apps/dashboard/static',
  'apps/dashboard/package.json',
  'apps/dashboard/svelte.config.js',
  'apps/dashboard/vite.config.ts',
  'apps/dashboard/vite.first-paint.config.ts',
  'packages/sdk/build',
  'packages/protocol/build',
  'package-lock.json',
  'scripts/dashboard.mjs',
]
const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.woff': 'font/woff',
  '.woff2': 'font/woff2',
}
/** Fonts are compressed in themselves. */
const COMPRESSIBLE = /^(?:text\/|application\/json|image\/svg)/
const MIN_SAVED_BYTES = 64

/**
 * Writes the pack to `path`: a copy of the one at `current` when nothing that it was made of has changed.
 * @param {string} path @param {string} current
 */
export function buildDashboard(path, current) {
  if (existsSync(current) && statSync(current).mtimeMs > newest(inputs.map((input) => join(root, input)))) {
    copyFileSync(current, path)
    return
  }
  vite()
  vite('--config', 'vite.first-paint.config.ts')
  const build = join(app, 'build')
  const [firstPaint = fail('The build has no first paint.')] = filesBelow(join(app, '.svelte-kit/first-paint'))
  copyFileSync(firstPaint, join(build, '_app/immutable', basename(firstPaint)))
  nameFirstPage(join(build, 'index.html'), `/_app/immutable/${basename(firstPaint)}`)
  const files = filesBelow(build).map((file) =>
    packed(`/${relative(build, file).split(sep).join('/')}`, readFileSync(file)),
  )
  writeFileSync(path, JSON.stringify({ files }))
}

/** @param {readonly string[]} options */
function vite(...options) {
  const command = [join(root, 'node_modules/vite/bin/vite.js'), 'build', '--logLevel', 'error', ...options]
  if (spawnSync(process.execPath, command, { cwd: app, stdio: ['ignore', 2, 2] }).status !== 0) process.exit(1)
}

/**
 * The shell is one for all addresses, so that SvelteKit knows the scripts of a page only once it runs. Those of the page that is opened
 * first and most are named in the shell, and so are its fonts. Where the list of capsules is painted first, the application waits for that.
 * @param {string} shell
 * @param {string} firstPaint the path of the script that paints first
 */
function nameFirstPage(shell, firstPaint) {
  const nodes = join(app, '.svelte-kit/generated/client-optimized/nodes')
  /** @type {Record<string, { readonly file: string; readonly imports?: readonly string[] }>} */
  const manifest = JSON.parse(readFileSync(join(app, '.svelte-kit/output/client/.vite/manifest.json'), 'utf8'))
  /** @type {Set<string>} */
  const files = new Set()
  /** @param {string} key */
  const add = (key) => {
    const { file, imports = [] } = manifest[key] ?? fail(`The build has no ${key}.`)
    if (files.has(file)) return
    files.add(file)
    for (const each of imports) add(each)
  }
  for (const page of ['routes/dashboard/+layout.svelte', 'routes/dashboard/capsules/+page.svelte']) {
    const name = readdirSync(nodes).find((file) => readFileSync(join(nodes, file), 'utf8').includes(`${page}"`))
    add(`.svelte-kit/generated/client-optimized/nodes/${name ?? fail(`No node is ${page}.`)}`)
  }
  const kit = readFileSync(shell, 'utf8')
  const preload = /\s*<link href="([^"]*)" rel="modulepreload">/g
  const everyPage = [...kit.matchAll(preload)].map(([, href]) => href)
  const firstPage = [...files].map((file) => `/${file}`).filter((href) => !everyPage.includes(href))
  const begin = /Promise\.all\(\[([^\]]*)\]\)\.then\(/
  if (everyPage.length === 0 || !begin.test(kit)) fail('The shell of SvelteKit begins otherwise than it did.')
  const html = kit
    .replace(preload, '')
    .replace(begin, 'Promise.resolve(globalThis.wrennFirstPaint).then(() => Promise.all([$1])).then(')
  /** @type {Readonly<Record<string, readonly string[]>>} */
  const names = {
    'first-paint': [firstPaint],
    'first-fonts': firstFonts(),
    'every-page': everyPage,
    'first-page': firstPage,
  }
  const named = html.replace(
    /%((?:first|every)-\w+)%/g,
    (_, name) => names[name]?.join(' ') ?? fail(`What is ${name}?`),
  )
  writeFileSync(shell, named)
}

/**
 * Those of the rows of the list. They would be asked for only when the first row is there, and another font in their place first: a browser
 * counts what it paints anew, and larger, as painted then.
 */
function firstFonts() {
  const folder = '_app/immutable/assets'
  const names = readdirSync(join(app, 'build', folder))
  return ['manrope', 'jetbrains-mono'].map((font) => {
    const name = names.find((each) => each.startsWith(`${font}-latin-wght-normal.`) && each.endsWith('.woff2'))
    return `/${folder}/${name ?? fail(`The build has no font ${font}.`)}`
  })
}

/** @param {string} text @returns {never} */
function fail(text) {
  throw new Error(text)
}

/** @param {string} path @param {Buffer} body */
function packed(path, body) {
  const type = types[extname(path)]
  if (type === undefined) throw new Error(`${path}: of what media type is it? scripts/dashboard.mjs must say.`)
  const file = { path, type, body: body.toString('base64') }
  if (!COMPRESSIBLE.test(type)) return file
  const br = brotliCompressSync(body, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: body.length } })
  const gzip = gzipSync(body, { level: 9 })
  return {
    ...file,
    ...(br.length + MIN_SAVED_BYTES < body.length ? { br: br.toString('base64') } : {}),
    ...(gzip.length + MIN_SAVED_BYTES < body.length ? { gzip: gzip.toString('base64') } : {}),
  }
}

/** @param {string} folder @returns {string[]} sorted, so that the same build is the same pack */
function filesBelow(folder) {
  const entries = readdirSync(folder, { withFileTypes: true, recursive: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}

/** @param {readonly string[]} paths */
function newest(paths) {
  const files = paths.filter(existsSync).flatMap((path) => (statSync(path).isDirectory() ? filesBelow(path) : [path]))
  return Math.max(...files.map((file) => statSync(file).mtimeMs))
}
