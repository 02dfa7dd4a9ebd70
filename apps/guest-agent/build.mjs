// Bundles the agent into dist/agent.mjs, one file, with the native terminal module beside it.
import { copyFileSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))
const dist = join(here, 'dist')

await build({
  entryPoints: [join(here, 'src/main.ts')],
  outfile: join(dist, 'agent.mjs'),
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  conditions: ['wrenn-source'],
  minify: true,
  legalComments: 'none',
  banner: { js: "import{createRequire as __cr}from'node:module';const require=__cr(import.meta.url);" },
})
mkdirSync(dist, { recursive: true })
const native = `@lydell/node-pty-linux-${process.arch}/package.json`
copyFileSync(join(dirname(createRequire(import.meta.url).resolve(native)), 'pty.node'), join(dist, 'pty.node'))
