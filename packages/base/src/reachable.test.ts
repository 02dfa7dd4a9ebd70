import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { obstacleOn } from './reachable.js'

const stranger = { uid: 64_912, gid: 64_912 }
let dir = ''

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-reachable-test-'))
  await chmod(dir, 0o755)
  await mkdir(join(dir, 'a/b'), { recursive: true })
  await writeFile(join(dir, 'a/b/file'), '')
  await chmod(join(dir, 'a/b/file'), 0o644)
})

afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

describe('obstacleOn', () => {
  it('finds nothing where all may pass and read', async () => {
    expect(await obstacleOn(join(dir, 'a/b/file'), stranger)).toBeUndefined()
    expect(await obstacleOn(join(dir, 'a/b'), stranger)).toBeUndefined()
  })

  it('names the folder that is closed, or the file', async () => {
    await chmod(join(dir, 'a'), 0o700)
    expect(await obstacleOn(join(dir, 'a/b/file'), stranger)).toBe(join(dir, 'a'))
    await chmod(join(dir, 'a/b/file'), 0o600)
    expect(await obstacleOn(join(dir, 'a/b/file'), stranger)).toBe(join(dir, 'a/b/file'))
  })

  it('judges an owner by what the owner may', async () => {
    const own = { uid: process.getuid?.() ?? 0, gid: 64_912 }
    await chmod(join(dir, 'a'), 0o700)
    expect(await obstacleOn(join(dir, 'a/b/file'), own)).toBeUndefined()
    await chmod(join(dir, 'a'), 0o077)
    expect(await obstacleOn(join(dir, 'a/b/file'), own)).toBe(join(dir, 'a'))
    await chmod(join(dir, 'a'), 0o700)
  })
})
