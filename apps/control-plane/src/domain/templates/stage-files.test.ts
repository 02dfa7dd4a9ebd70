import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { keepStageFiles } from './stage-files.js'

type Guest = Parameters<typeof keepStageFiles>[0]

const exec = promisify(execFile)
/** In the place of the guest's `/`. */
let root: string
let ends = 0
let wentBack = false

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'wrenn-test-stage-'))
  ends = 0
  wentBack = false
  await mkdir(join(root, 'var/tmp'), { recursive: true })
  await writeFile(join(root, 'var/tmp/kept'), 'one')
  await writeFile(join(root, '.hidden'), 'two')
})
afterEach(async () => await rm(root, { recursive: true, force: true }))

const guest: Guest = {
  capsule: { teamId: 'team', id: 'cl-1' },
  answer: async ({ cmd, args }) => Buffer.from((await exec(cmd, args, { cwd: root })).stdout),
  async *archive(path) {
    try {
      const { stdout } = await exec('tar', ['-cf', '-', '-C', join(root, path, '..'), 'tree'], { encoding: 'buffer' })
      for (let at = 0; at < stdout.length; at += 512) yield stdout.subarray(at, at + 512)
    } finally {
      ends += 1
    }
  },
  requireUnbroken: async () => {
    if (wentBack) throw new Error('it went back')
  },
}

it.each([
  ['a folder with the place for temporary files', 'var', { 'var/tmp/kept': 'one' }],
  ['what a pattern finds, but not the place itself', '.[!.]*', { '.hidden': 'two' }],
])('keeps %s, and leaves nothing behind', async (_, source, expected) => {
  const kept = await mkdtemp(join(tmpdir(), 'wrenn-test-kept-'))
  const receive = async (ref: object, tar: Readable): Promise<void> => {
    expect(ref).toEqual({ teamId: 'team', hash: 'hash' })
    await writeFile(join(kept, 'files.tar'), await buffer(tar))
  }
  await keepStageFiles(guest, { receive }, source, 'hash')
  await exec('tar', ['-xf', 'files.tar'], { cwd: kept })
  for (const [path, content] of Object.entries(expected)) {
    expect(await readFile(join(kept, 'tree', path), 'utf8'), path).toBe(content)
  }
  expect(await readdir(join(kept, 'tree'))).toHaveLength(1)
  await rm(kept, { recursive: true })
  expect((await readdir(root)).sort()).toEqual(['.hidden', 'var'])
})

it('ends the archive when the files are not taken', async () => {
  const receive = async (_: object, tar: Readable): Promise<void> => {
    for await (const _piece of tar.iterator({ destroyOnReturn: false })) throw new Error('there is no room')
  }
  await expect(keepStageFiles(guest, { receive }, 'var', 'hash')).rejects.toThrow('there is no room')
  await expect.poll(() => ends).toBe(1)
})

it('is not kept of a guest that went back to an earlier state meanwhile', async () => {
  wentBack = true
  const receive = async (_: object, tar: Readable): Promise<void> => {
    await buffer(tar)
  }
  await expect(keepStageFiles(guest, { receive }, 'var', 'hash')).rejects.toThrow('it went back')
})
