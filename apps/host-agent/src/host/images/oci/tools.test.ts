import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { needTools } from './tools.js'

describe('the programs that fetch images', () => {
  it('are named with their package when they are not there', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'wrenn-tools-'))
    try {
      for (const [tool, debianPackage] of [
        ['bwrap', 'bubblewrap'],
        ['skopeo', 'skopeo'],
        ['umoci', 'umoci'],
      ] as const) {
        await expect(needTools(`/nowhere:${folder}`)).rejects.toMatchObject({
          code: 'invalid_config',
          message: expect.stringMatching(new RegExp(`^${tool} is missing .*install ${debianPackage}$`)),
        })
        await writeFile(join(folder, tool), '')
      }
      await expect(needTools(`/nowhere:${folder}`)).resolves.toBeUndefined()
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
