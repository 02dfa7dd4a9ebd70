import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { capsuleIds, silentLogger } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Journal, layersOfRecords } from './journal.js'
import type { CapsuleRecord } from './types.js'

function recordOf(): CapsuleRecord {
  return {
    capsuleId: capsuleIds.create(),
    teamId: 'team-1',
    template: 'minimal',
    vcpus: 1,
    memoryMib: 512,
    diskSizeMib: 5120,
    state: 'running',
    generation: 1,
    resources: undefined,
    secret: 's',
    egress: { internet: true, allow: [], deny: [] },
    engine: 'fake',
    engineVersion: '1',
    kernelVersion: '6.12',
    image: { digest: '', basePath: '', agentPath: '', kernelPath: '', initrdPath: '', kernelArgs: [], layers: [] },
    files: 0,
    hostname: 'box',
    bootId: 'boot-1',
    agentVersion: '1',
    path: 'hot',
    timings: [],
    createdAtMs: 1,
    lastActiveAtMs: 1,
    exit: undefined,
  }
}

describe('the journal', () => {
  let dir: string

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'wrenn-journal-'))
  })

  afterEach(async () => {
    await rm(dir, { recursive: true })
  })

  it('keeps no headers of rules, and of a policy that has some no revision', async () => {
    const journal = new Journal(dir, silentLogger)
    await journal.open()
    const authority = { cert: 'certificate', key: 'key' }
    const rules = [{ host: 'api.example', headers: { authorization: 'Bearer s3cret' } }]
    const egress = { internet: true, allow: [], deny: [], intercept: true, authority }
    const record = { ...recordOf(), egressRevision: 7, egress: { ...egress, rules } }
    await journal.put(record)
    const [name = ''] = await readdir(dir)
    expect(await readFile(join(dir, name), 'utf8')).not.toContain('s3cret')
    expect(await new Journal(dir, silentLogger).open()).toEqual([
      expect.objectContaining({ egress, egressRevision: 0, capsuleId: record.capsuleId }),
    ])
  })

  it('gives back after a restart what was put and not removed', async () => {
    const journal = new Journal(dir, silentLogger)
    expect(await journal.open()).toEqual([])
    const [kept, removed] = [recordOf(), recordOf()]
    await journal.put(kept)
    await journal.put({ ...kept, state: 'stopping' })
    await journal.sync(kept.capsuleId)
    await journal.put(removed)
    await journal.remove(removed.capsuleId)
    await journal.remove(removed.capsuleId)
    await journal.sync(removed.capsuleId)
    const again = await new Journal(dir, silentLogger).open()
    expect(again.map(({ capsuleId, state }) => ({ capsuleId, state }))).toEqual([
      { capsuleId: kept.capsuleId, state: 'stopping' },
    ])
  })

  it('tells others which layers it needs, unless it cannot know', async () => {
    expect(await layersOfRecords(join(dir, 'absent'))).toEqual([])
    const journal = new Journal(dir, silentLogger)
    const record = recordOf()
    await journal.put({ ...record, image: { ...record.image, layers: ['a', 'b'] } })
    await writeFile(join(dir, 'cl-half.json.1.tmp'), '')
    expect(await layersOfRecords(dir)).toEqual(['a', 'b'])
    expect(await readdir(dir)).toContain('cl-half.json.1.tmp')
    await writeFile(join(dir, 'cl-broken.json'), '{')
    expect(await layersOfRecords(dir)).toBeUndefined()
    await journal.open()
    expect(await layersOfRecords(dir)).toBeUndefined()
  })

  it('sets a record that cannot be read aside and goes on with the others', async () => {
    const journal = new Journal(dir, silentLogger)
    const kept = recordOf()
    await journal.put(kept)
    await writeFile(join(dir, 'cl-broken.json'), '{"capsuleId":')
    await writeFile(join(dir, 'cl-half.json.tmp'), '')
    for (const _start of ['the first', 'the next']) {
      const again = new Journal(dir, silentLogger)
      expect(await again.open()).toHaveLength(1)
      expect([...again.unreadable]).toEqual(['cl-broken'])
    }
    expect((await readdir(dir)).sort()).toEqual(['cl-broken.json.unreadable', `${kept.capsuleId}.json`].sort())
  })
})
