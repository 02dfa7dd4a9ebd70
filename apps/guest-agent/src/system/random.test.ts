import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { randomHex } from './random.js'

describe('random names', () => {
  it('have the asked length and do not repeat', () => {
    const names = Array.from({ length: 100 }, () => randomHex(8))
    expect(new Set(names).size).toBe(100)
    expect(names.every((name) => /^[0-9a-f]{16}$/.test(name))).toBe(true)
  })

  it('come from nowhere else in the agent: a generator in memory would repeat in every guest of a snapshot', () => {
    const source = fileURLToPath(new URL('..', import.meta.url))
    const pattern = 'randomBytes|randomUUID|Math\\.random|getRandomValues'
    const found = execFileSync('sh', ['-c', `grep -rlE '${pattern}' --include=*.ts . | grep -v test || true`], {
      cwd: source,
      encoding: 'utf8',
    })
    expect(found).toBe('')
  })
})
