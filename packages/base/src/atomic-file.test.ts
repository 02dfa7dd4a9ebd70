import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { removeEntries, removeUnfinished, writeFileAtomic } from './atomic-file.js'

let dir = ''

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-atomic-test-'))
})

afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

it('leaves nothing beside what it wrote', async () => {
  await writeFileAtomic(join(dir, 'a'), '1')
  await writeFileAtomic(join(dir, 'a'), '2')
  expect(await readdir(dir)).toEqual(['a'])
})

it('removes what killed writers left, and no file of another name', async () => {
  for (const name of ['a', 'a.0a1b2c3d.tmp', 'a.tmp', '.0a1b2c3d.tmp']) await writeFile(join(dir, name), '')
  await removeUnfinished(dir)
  expect((await readdir(dir)).sort()).toEqual(['.0a1b2c3d.tmp', 'a', 'a.tmp'])
})

it('removes entries, folders too, with what is left of them, and nothing else', async () => {
  await mkdir(join(dir, 'folder', 'deep'), { recursive: true })
  for (const name of ['a', 'a.0a1b2c3d.tmp', 'ab', 'b.0a1b2c3d.tmp']) await writeFile(join(dir, name), '')
  await removeEntries(dir, ['a', 'folder', 'absent'])
  expect((await readdir(dir)).sort()).toEqual(['ab', 'b.0a1b2c3d.tmp'])
  await removeEntries(join(dir, 'gone'), ['a'])
})
