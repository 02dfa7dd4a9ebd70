import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { Upstreams } from './upstreams.js'

const [FIRST, SECOND] = ['10.0.0.1', '10.0.0.2']
let dir: string
let nowMs = 0
let upstreams: Upstreams

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-upstreams-'))
  await writeFile(join(dir, 'resolv.conf'), `nameserver ${FIRST}\nnameserver ${SECOND}\nnameserver 10.0.0.9\n`)
})
afterAll(async () => await rm(dir, { recursive: true }))
beforeEach(() => {
  upstreams = new Upstreams(join(dir, 'resolv.conf'), ['10.0.0.9'], () => nowMs)
})

const silent = (times: number): void => {
  for (let count = 0; count < times; count += 1) upstreams.noteSilence(FIRST)
}

describe('the upstream servers', () => {
  it('are asked in the order of the file, we ourselves never', async () => {
    expect(await upstreams.list()).toEqual([FIRST, SECOND])
  })

  it('that stay silent are asked last, for a while', async () => {
    await upstreams.list()
    silent(3)
    expect(await upstreams.list()).toEqual([SECOND, FIRST])
    nowMs += 10_000
    expect(await upstreams.list()).toEqual([FIRST, SECOND])
    silent(1)
    expect(await upstreams.list()).toEqual([SECOND, FIRST])
  })

  it('keep their place when the name was to blame: they answered something since', async () => {
    await upstreams.list()
    silent(2)
    upstreams.noteAnswer(FIRST)
    silent(2)
    expect(await upstreams.list()).toEqual([FIRST, SECOND])
  })
})
