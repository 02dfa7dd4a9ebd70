import { describe, expect, it } from 'vitest'
import { chooseKernel } from './kernel-choice.js'

/** An archive with these packages, each with what it depends on. */
const archive = (packages: Readonly<Record<string, readonly string[]>>) => ({
  suite: 'bookworm',
  dependencies: async (name: string) => packages[name],
})
const second = { 'linux-image-cloud-amd64': ['linux-image-6.1.0-56-cloud-amd64'] }

describe('chooseKernel', () => {
  it('takes Linux 6.12 where the archive has it', async () => {
    const first = { 'linux-image-6.12-cloud-amd64': ['linux-base', 'linux-image-6.12.117+deb12-cloud-amd64'] }
    expect(await chooseKernel(archive({ ...second, ...first }))).toEqual({
      package: 'linux-image-6.12.117+deb12-cloud-amd64',
      isPreferred: true,
      reason: 'The newest of linux-image-6.12-cloud-amd64 in Debian bookworm.',
    })
  })

  it('says that and why it takes the older one', async () => {
    expect(await chooseKernel(archive(second))).toMatchObject({
      package: 'linux-image-6.1.0-56-cloud-amd64',
      isPreferred: false,
      reason: expect.stringContaining('have no linux-image-6.12-cloud-amd64'),
    })
  })

  it('refuses an archive with neither', async () => {
    await expect(chooseKernel(archive({}))).rejects.toMatchObject({ code: 'invalid_config' })
  })
})
