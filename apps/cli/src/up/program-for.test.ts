import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { programFor } from './program-for.js'

const stranger = { uid: 64_913, gid: 64_913 }
let dir = ''
let bundle = ''

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-cli-test-'))
  await chmod(dir, 0o755)
  await mkdir(join(dir, 'checkout'))
  bundle = join(dir, 'checkout/main.mjs')
  await writeFile(bundle, 'one')
})

afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

describe('programFor', () => {
  it('takes a bundle that its user can read from where it is', async () => {
    expect(await programFor(stranger, bundle, join(dir, 'copies'))).toMatchObject({ bundle, program: process.execPath })
  })

  it('copies one that lies where its user may not enter, anew each time, with the native modules and the dashboard beside it', async () => {
    await chmod(join(dir, 'checkout'), 0o700)
    for (const content of ['one', 'two']) {
      await writeFile(bundle, content)
      await writeFile(join(dir, 'checkout/argon2.node'), `native ${content}`)
      await writeFile(join(dir, 'checkout/dashboard.pack'), `pages ${content}`)
      const found = await programFor(stranger, bundle, join(dir, 'copies'))
      expect(found.bundle).toBe(join(dir, 'copies/main.mjs'))
      expect(await readFile(found.bundle, 'utf8')).toBe(content)
      expect(await readFile(join(dir, 'copies/argon2.node'), 'utf8')).toBe(`native ${content}`)
      expect(await readFile(join(dir, 'copies/dashboard.pack'), 'utf8')).toBe(`pages ${content}`)
      expect((await stat(found.bundle)).mode & 0o777).toBe(0o644)
    }
  })
})
