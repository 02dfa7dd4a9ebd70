import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createAuthority } from '@wrenn/certificates'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { requireCertificates } from './ca-file.js'

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-ca-'))
})
afterAll(async () => {
  await rm(dir, { recursive: true })
})

describe('the file of certificates that hosts may have', () => {
  it('is read before anything needs it', async () => {
    const { cert } = await createAuthority('the world', undefined)
    const path = join(dir, 'ca.pem')
    const refused = { code: 'invalid_config', message: expect.stringContaining('WRENN_EGRESS_CA_FILE') }
    await expect(requireCertificates(path)).rejects.toMatchObject(refused)
    for (const text of ['', 'nothing', cert.replace('MII', '***')]) {
      await writeFile(path, text)
      await expect(requireCertificates(path)).rejects.toMatchObject(refused)
    }
    await writeFile(path, `# ours\n${cert}\n${cert}`)
    await requireCertificates(path)
  })
})
