import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { EndedTraffic } from './traffic.js'

const guest = (guestId: string, rxBytes = 1) => ({ owner: 'cl-one', guestId, rxBytes, txBytes: 2 })

describe('what guests received and sent that have ended', () => {
  let dir: string
  let path: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'wrenn-test-traffic-'))
    path = join(dir, 'ended')
  })
  afterEach(async () => {
    await rm(dir, { recursive: true, force: true })
  })
  const loaded = async (): Promise<EndedTraffic> => {
    const ended = new EndedTraffic(path)
    await ended.load()
    return ended
  }

  it('outlives the process, until it was noted', async () => {
    const ended = await loaded()
    await Promise.all([ended.add(guest('a')), ended.add(guest('b'))])
    expect((await loaded()).list()).toEqual([guest('a'), guest('b')])
    await Promise.all([ended.forget(['a', 'nobody']), ended.add(guest('c'))])
    expect(ended.list()).toEqual([guest('b'), guest('c')])
    expect((await loaded()).list()).toEqual([guest('b'), guest('c')])
    await ended.forget(['b', 'c'])
    expect(await readFile(path, 'utf8')).toBe('')
  })

  it('is that of the last time when it was said twice', async () => {
    const ended = await loaded()
    await ended.add(guest('a', 1))
    await ended.add(guest('a', 7))
    expect((await loaded()).list()).toEqual([guest('a', 7)])
  })

  it('is whole but for a line whose writer was killed', async () => {
    await (await loaded()).add(guest('a'))
    await appendFile(path, '{"owner":"cl-one","gue')
    const ended = await loaded()
    expect(ended.list()).toEqual([guest('a')])
    await ended.add(guest('b'))
    expect((await loaded()).list()).toEqual([guest('a'), guest('b')])
  })
})
