#!/usr/bin/env node
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const bundle = new URL('../dist/main.mjs', import.meta.url)
if (!existsSync(fileURLToPath(bundle))) {
  process.stderr.write('wrenn is not built yet: run `npm run build` first.\n')
  process.exit(1)
}
await import(bundle.href)
