import { createHash } from 'node:crypto'
import fs from 'node:fs'
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { BuildFiles } from './build-files.js'

const DAY_MS = 24 * 3600 * 1000
const teamId = 'team-1'
let dir: string
let files: BuildFiles

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-files-'))
  files = new BuildFiles({ dir, uploadBytes: 100, filesBytes: 250, floorBytes: 10, freshMs: 1_000 })
})
afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

const bytes = (size: number): Readable => Readable.from([Buffer.alloc(size, 'x')])
const receive = async (hash: string, size: number) => await files.receive({ teamId, hash }, bytes(size), undefined)
const names = async (): Promise<string[]> => (await readdir(join(dir, teamId))).sort()

async function age(hash: string, ms: number, name = `${hash}.sealed`): Promise<void> {
  const then = new Date(Date.now() - ms)
  await utimes(join(dir, teamId, name), then, then)
}

describe('uploads of builds', () => {
  it('are there once they are whole, and the newer one counts', async () => {
    expect(await files.has(teamId, 'a')).toBe(false)
    await receive('a', 10)
    await receive('a', 20)
    expect(await files.has(teamId, 'a')).toBe(true)
    expect((await buffer((await files.open(teamId, 'a')).stream)).length).toBe(20)
    expect(await names()).toEqual(['a.sealed'])
  })

  it('are given to nobody when they have changed on the disk, and are to be uploaded again', async () => {
    const path = join(dir, teamId, 'a.sealed')
    const flipped = async (at: number): Promise<void> => {
      const content = await readFile(path)
      content[at] = (content[at] ?? 0) ^ 1
      await writeFile(path, content)
    }
    const damages = [
      () => flipped(3),
      () => truncate(path, 15),
      () => truncate(path, 0),
      async () => await flipped((await stat(path)).size - 5),
      () => appendFile(path, 'x'),
    ]
    for (const damage of damages) {
      await receive('a', 20)
      await damage()
      const read = async () => await buffer((await files.open(teamId, 'a')).stream)
      await expect(read()).rejects.toMatchObject({
        code: 'build_failed',
        message: expect.stringContaining('not what was kept'),
      })
      expect(await files.has(teamId, 'a')).toBe(false)
    }
    await receive('none', 0)
    expect((await buffer((await files.open(teamId, 'none')).stream)).length).toBe(0)
    const unread = await files.open(teamId, 'none')
    unread.stream.destroy()
  })

  it('are known by what they have, and read no longer than who asks waits', async () => {
    await receive('a', 20)
    const sha256 = createHash('sha256').update('x'.repeat(20)).digest('hex')
    expect(await files.digest(teamId, 'a', new AbortController().signal)).toEqual({ sha256, sizeBytes: 20 })
    await expect(files.digest(teamId, 'a', AbortSignal.abort(new Error('given up')))).rejects.toThrow('given up')
  })

  it('are refused beyond their limit, by what arrives and by what is said', async () => {
    await expect(files.receive({ teamId, hash: 'a' }, bytes(1), 101)).rejects.toMatchObject({ code: 'too_large' })
    await expect(receive('a', 101)).rejects.toMatchObject({ code: 'too_large' })
    expect(await names()).toEqual([])
  })

  it('leave nothing when they break off while their file is being opened, on a disk that is slow at it', async () => {
    const { open: opened } = fs
    const slow = vi.spyOn(fs, 'open').mockImplementation((...args: unknown[]) => {
      setTimeout(() => Reflect.apply(opened, fs, args), 50)
    })
    await expect(receive('a', 101)).rejects.toMatchObject({ code: 'too_large' })
    await new Promise((resolve) => setTimeout(resolve, 100))
    slow.mockRestore()
    expect(await names()).toEqual([])
  })

  it('are refused beyond what a team may keep, also when all began while there was room', async () => {
    const sources = ['a', 'b', 'c', 'd'].map((hash) => {
      const source = new Readable({ read() {} })
      source.push(Buffer.alloc(40, 'x'))
      return { source, done: files.receive({ teamId, hash }, source, undefined) }
    })
    const ends: PromiseSettledResult<void>[] = []
    for (const { source, done } of sources) {
      source.push(Buffer.alloc(45, 'x'))
      source.push(null)
      ends.push(...(await Promise.allSettled([done])))
    }
    expect(ends.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected'])
    expect(await names()).toEqual(['a.sealed', 'b.sealed'])
  })

  it('are refused beyond what a team may keep, unless others were not used for long', async () => {
    await receive('a', 100)
    await receive('b', 100)
    await expect(receive('c', 100)).rejects.toThrow('WRENN_BUILD_FILES_MAX_MIB')
    await files.receive({ teamId: 'team-2', hash: 'c' }, bytes(100), undefined)
    await age('a', 5_000)
    await files.receive({ teamId, hash: 'c' }, bytes(100), 100)
    expect(await names()).toEqual(['b.sealed', 'c.sealed'])
    await receive('b', 100)
  })

  it('make room of what an earlier version has left, which nobody reads', async () => {
    await mkdir(join(dir, teamId), { recursive: true })
    await writeFile(join(dir, teamId, 'old.tar'), Buffer.alloc(200))
    await files.receive({ teamId, hash: 'a' }, bytes(90), 90)
    await files.receive({ teamId, hash: 'b' }, bytes(90), 90)
    expect(await names()).toEqual(['a.sealed', 'b.sealed'])
  })

  it('count ten bytes at least, be they empty, those under way too', async () => {
    const open = Array.from({ length: 5 }, (_, n) => {
      const source = new Readable({ read() {} })
      return { source, done: files.receive({ teamId, hash: `open-${n}` }, source, undefined) }
    })
    await expect.poll(async () => (await names().catch(() => [])).length).toBe(5)
    for (let n = 0; n < 20; n++) await receive(`empty-${n}`, 0)
    await expect(receive('one-more', 0)).rejects.toMatchObject({ code: 'too_large' })
    for (const { source, done } of open) {
      source.push(null)
      await done
    }
    expect((await names()).length).toBe(25)
    await expect(receive('one-more', 0)).rejects.toThrow('WRENN_BUILD_FILES_MAX_MIB')
    await receive('empty-0', 0)
  })

  it('that break off leave nothing', async () => {
    const broken = Readable.from(
      (async function* () {
        yield Buffer.alloc(10)
        throw Object.assign(new Error('aborted'), { code: 'ECONNRESET' })
      })(),
    )
    await expect(files.receive({ teamId, hash: 'a' }, broken, undefined)).rejects.toMatchObject({
      code: 'invalid_request',
    })
    expect(await names()).toEqual([])
  })

  it('go when nobody used them for long; so does what a killed process had begun', async () => {
    await receive('old', 10)
    await receive('new', 10)
    await age('old', 15 * DAY_MS)
    await writeFile(join(dir, teamId, 'x.sealed.0.part'), '')
    await age('x', 2 * 3600 * 1000, 'x.sealed.0.part')
    await writeFile(join(dir, teamId, 'y.sealed.0.part'), '')
    await mkdir(join(dir, 'team-empty'))
    await files.prune(14 * DAY_MS)
    expect(await names()).toEqual(['new.sealed', 'y.sealed.0.part'])
    expect(await readdir(dir)).toEqual([teamId])
  })

  it('are no more where they were removed, and are not taken where there is no place for them', async () => {
    await expect(files.open(teamId, 'a')).rejects.toMatchObject({ code: 'build_failed' })
    const none = new BuildFiles({ dir: undefined, uploadBytes: 1, filesBytes: 1, freshMs: 1 })
    await expect(none.has(teamId, 'a')).rejects.toMatchObject({ code: 'not_supported' })
    await none.prune(1)
  })
})
