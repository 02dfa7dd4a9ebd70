// biome-ignore-all lint/correctness/noNodejsModules: part of the tests, which run in Node.js
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { expect, it } from 'vitest'

it('the SDK brings pages no library for schemas: types are all that it takes of them', async () => {
  const { metafile } = await build({
    entryPoints: [fileURLToPath(new URL('index.ts', import.meta.url))],
    bundle: true,
    format: 'esm',
    platform: 'browser',
    conditions: ['wrenn-source'],
    metafile: true,
    write: false,
    outdir: 'none',
  })
  const [output] = Object.values(metafile.outputs)
  const inputs = Object.entries(output?.inputs ?? {}).filter(([, { bytesInOutput }]) => bytesInOutput > 0)
  const names = inputs.map(([path]) => path)
  expect(names.some((path) => path.endsWith('sdk/src/index.ts') || path.endsWith('sdk/src/client.ts'))).toBe(true)
  expect(names.filter((path) => path.includes('node_modules') || path.includes('protocol/src/rest'))).toEqual([])
})
