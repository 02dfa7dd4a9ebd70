import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { requireSearchable } from './searchable.js'

describe('requireSearchable', () => {
  it('passes an open path and names the folder that is closed', async () => {
    const top = await mkdtemp(join(tmpdir(), 'wrenn-search-'))
    try {
      const dir = join(top, 'data')
      await mkdir(dir, { mode: 0o711 })
      await expect(requireSearchable(dir)).rejects.toMatchObject({
        code: 'invalid_config',
        message: expect.stringContaining('chmod o+x'),
      })
      await expect(requireSearchable(dir)).rejects.toThrow(`${top} is closed`)
      await chmod(top, 0o711)
      await requireSearchable(dir)
      await chmod(dir, 0o700)
      await expect(requireSearchable(dir)).rejects.toThrow(`${dir} is closed`)
    } finally {
      await rm(top, { recursive: true })
    }
  })
})
