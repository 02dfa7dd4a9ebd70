import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FolderContext } from './folder-context.js'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-context-'))
  for (const path of ['src/a.c', 'src/a.o', 'node_modules/x/y', 'keep/deep/yes', 'keep/no', 'Makefile', 'makefile']) {
    await mkdir(join(dir, path, '..'), { recursive: true })
    await writeFile(join(dir, path), path)
  }
  await symlink('src/a.c', join(dir, 'link'))
})
afterEach(async () => {
  await rm(dir, { recursive: true })
})

const paths = async (dockerfile?: string): Promise<string[]> => {
  const context = await FolderContext.open(dir, dockerfile)
  return (await context.entries()).map(({ path }) => path)
}

describe('a folder as a context', () => {
  it('has all that a .dockerignore does not leave out, by letter, and folders of exceptions', async () => {
    await writeFile(join(dir, '.dockerignore'), 'node_modules\n**/*.o\nkeep\n!keep/deep\nmakefile\n.dockerignore\n')
    expect(await paths()).toEqual(['Makefile', 'keep', 'keep/deep', 'keep/deep/yes', 'link', 'src', 'src/a.c'])
    await writeFile(join(dir, 'Other.dockerignore'), '*\n!link\n')
    expect(await paths(join(dir, 'Other'))).toEqual(['link'])
  })

  it('is packed as a tar that tar reads, with modes, links and texts', async () => {
    const context = await FolderContext.open(dir, undefined)
    const entries = await context.entries()
    const source = entries.filter(({ path }) => path.startsWith('src') || path === 'link')
    const archive = context.archive([
      ...source.map((entry) => ({ as: `in/${entry.path}`, entry })),
      { as: `${'long-'.repeat(40)}name`, text: 'a text' },
    ])
    const tar = await buffer(archive)
    const listed = execFileSync('tar', ['-tf', '-'], { input: tar }).toString()
    expect(listed.trim().split('\n')).toEqual([
      'in/link',
      'in/src/',
      'in/src/a.c',
      'in/src/a.o',
      `${'long-'.repeat(40)}name`,
    ])
    expect(execFileSync('tar', ['-xOf', '-', 'in/src/a.c'], { input: tar }).toString()).toBe('src/a.c')
  })

  it('is not packed under digests of other content', async () => {
    const context = await FolderContext.open(dir, undefined)
    const path = 'src/a.c'
    const entry = (await context.entries()).find((one) => one.path === path)
    if (entry === undefined) throw new Error('it is there')
    const packed = async () => await buffer(context.archive([{ as: 'a.c', entry, digest }]))
    const digest = await context.digest(path)
    await expect(packed()).resolves.toBeInstanceOf(Buffer)
    await writeFile(join(dir, path), path.toUpperCase())
    await expect(packed()).rejects.toThrow('src/a.c changed while it was read; build again.')
    await rm(join(dir, path))
    await expect(packed()).rejects.toThrow('src/a.c changed while it was read; build again.')
  })

  it('knows the content of a file, and is refused where there is no folder', async () => {
    const context = await FolderContext.open(dir, undefined)
    expect(await context.digest('link')).toBe(await context.digest('src/a.c'))
    await expect(FolderContext.open(join(dir, 'Makefile'), undefined)).rejects.toThrow('is no folder')
  })
})
