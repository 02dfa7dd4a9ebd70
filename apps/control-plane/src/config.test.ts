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
