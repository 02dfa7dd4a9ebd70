import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { packagePath } from './debian.js'

describe('packagePath', () => {
  let root: string

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'wrenn-package-'))
  })
  afterEach(async () => {
    await rm(root, { recursive: true })
  })

  const layouts = [
    ['Debian 12', ['bin/busybox', 'lib/modules/6.1.0-1-cloud-amd64/modules.order']],
    ['Debian 13', ['usr/bin/busybox', 'usr/lib/modules/6.12.1+deb13-cloud-amd64/modules.order']],
  ] as const

  it.each(layouts)('finds programs and modules where %s packs them', async (_, files) => {
    for (const path of files) {
      await mkdir(join(root, dirname(path)), { recursive: true })
      await writeFile(join(root, path), '')
    }
    const unpacked = { name: 'linux-image', version: '1', root }
    for (const path of files) expect(await packagePath(unpacked, path.replace(/^usr\//, ''))).toBe(join(root, path))
  })

  it('names the package that lacks it', async () => {
    await expect(packagePath({ name: 'kmod', version: '30-1', root }, 'bin/kmod')).rejects.toMatchObject({
      code: 'image_build_failed',
      message: 'The package kmod 30-1 holds no bin/kmod.',
    })
  })
})
