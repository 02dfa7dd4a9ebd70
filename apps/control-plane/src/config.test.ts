import { readFile } from 'node:fs/promises'
import { createCapsuleSchema, quotaSchema } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { readConfig } from './config.js'

const MIB = 2 ** 20

describe('the settings', () => {
  it('count sizes in MiB or bytes', () => {
    const required = { DATABASE_URL: 'postgres://localhost/x', WRENN_HOST_AGENT_ADDRESS: 'unix:/x' }
    const { limits } = readConfig({ ...required, WRENN_EXEC_OUTPUT_LIMIT_MIB: '3', WRENN_MAX_MEMORY_MB: '128' })
    expect(limits).toMatchObject({ execOutputBytes: 3 * MIB, maxMemoryMib: 128 })
  })

  it('have a Lago with its key, in one of two places, or none', () => {
    const required = { DATABASE_URL: 'postgres://localhost/x', WRENN_HOST_AGENT_ADDRESS: 'unix:/x' }
    const url = { WRENN_LAGO_URL: 'https://lago.example/sub/api/v1/' }
    const [key, file] = [{ WRENN_LAGO_API_KEY: 'a-key' }, { WRENN_LAGO_API_KEY_FILE: '/key' }]
    expect(readConfig(required).lago).toBeUndefined()
    const { lago } = readConfig({ ...required, ...url, ...key, WRENN_LAGO_FROM: '2026-11-01' })
    expect(lago).toMatchObject({ url: 'https://lago.example/sub', apiKey: 'a-key', from: '2026-11-01' })
    expect(readConfig({ ...required, ...url, ...file }).lago).toMatchObject({ apiKeyFile: '/key' })
    for (const wrong of [url, key, file, { ...url, ...key, ...file }, { ...key, WRENN_LAGO_URL: 'ftp://lago.example' }])
      expect(() => readConfig({ ...required, ...wrong })).toThrow('WRENN_LAGO')
    expect(() => readConfig({ ...required, ...key, WRENN_LAGO_URL: 'https://me:secret@lago.example' })).toThrow(
      /^(?!.*secret)/,
    )
    expect(() => readConfig({ ...required, ...url, WRENN_LAGO_API_KEY: 'two secrets' })).toThrow(/^(?!.*two)/)
  })

  it('say MB only where they bound a field of the API that does', async () => {
    const fields = [...Object.keys(createCapsuleSchema.shape), ...Object.keys(quotaSchema.shape)]
    for (const app of ['control-plane', 'host-agent', 'cli']) {
      const source = await readFile(new URL(`../../${app}/src/config.ts`, import.meta.url), 'utf8')
      for (const [name] of source.matchAll(/WRENN_[A-Z_]+_MB/g)) {
        expect(
          fields.some((field) => name.endsWith(`_${field.toUpperCase()}`)),
          name,
        ).toBe(true)
      }
    }
  })
})
