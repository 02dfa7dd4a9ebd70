import { open, readFile, rename, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { untilDurable } from './harness/commands.js'
import { create, type Subject } from './harness/subject.js'
import { refusal, World } from './harness/world.js'

const world = new World().use()
const { agent, site } = world
const checkpointId = checkpointIds.create()
const snapshotId = snapshotIds.create()
let subject: Subject

beforeAll(async () => {
  subject = await world.subject()
  await agent.client.createCheckpoint({ capsuleId: subject.id, checkpointId })
  await agent.client.createSnapshot({ capsuleId: subject.id, snapshotId })
  await subject.pause()
  await untilDurable(agent, subject.id)
})
afterAll(async () => {
  await agent.client.deleteSnapshot({ snapshotId })
})

/** Breaks a file; the returned function puts it right again. */
type Damage = (path: string) => Promise<() => Promise<void>>

const gone: Damage = async (path) => {
  await rename(path, `${path}.away`)
  return async () => await rename(`${path}.away`, path)
}

const cut: Damage = async (path) => {
  await using file = await open(path, 'r')
  const { size } = await file.stat()
  const { buffer } = await file.read(Buffer.alloc(4096), 0, 4096, size - 4096)
  await truncate(path, size - 4096)
  return async () => {
    await using again = await open(path, 'r+')
    await again.write(buffer, 0, 4096, size - 4096)
  }
}

const flipped: Damage = async (path) => {
  const flip = async (): Promise<void> => {
    await using file = await open(path, 'r+')
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, 1000)
    await file.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, 1000)
  }
  await flip()
  return flip
}

const rewritten =
  (change: (text: string) => string): Damage =>
  async (path) => {
    const text = await readFile(path, 'utf8')
    await writeFile(path, change(text))
    return async () => await writeFile(path, text)
  }

const foreign = rewritten((text) => {
  const manifest = JSON.parse(text)
  return JSON.stringify({ ...manifest, hardware: { ...manifest.hardware, machine: 'pc-q35-1.0' } })
})

interface Case {
  readonly title: string
  readonly file: string
  readonly damage: Damage
  readonly code: string
  readonly says: string
}

const cases: readonly Case[] = [
  { title: 'cut memory', file: 'mem', damage: cut, code: 'snapshot_damaged', says: 'mem has' },
  { title: 'missing memory', file: 'mem', damage: gone, code: 'snapshot_damaged', says: 'mem is missing' },
  {
    title: 'a flipped bit in the device state',
    file: 'state',
    damage: flipped,
    code: 'snapshot_damaged',
    says: 'state does',
  },
  { title: 'missing device state', file: 'state', damage: gone, code: 'snapshot_damaged', says: 'state cannot' },
  { title: 'a missing disk', file: 'disk.raw', damage: gone, code: 'snapshot_damaged', says: 'disk.raw is missing' },
  {
    ...{
      title: 'an unreadable manifest',
      file: 'manifest.json',
      code: 'snapshot_damaged',
      says: 'manifest.json cannot',
    },
    damage: rewritten((text) => text.slice(0, 100)),
  },
  {
    title: 'a machine type that this engine has not',
    file: 'manifest.json',
    damage: foreign,
    code: 'state_not_loadable',
    says: 'no machine type pc-q35-1.0',
  },
]

const at = (...path: string[]): string => join(site.dir, 'pool', ...path)
const generation = async (): Promise<string> =>
  at('capsules', subject.id, String((await agent.record(subject.id)).files))
const rollback = () => agent.client.rollbackCapsule({ capsuleId: subject.id, checkpointId })
const startFrom = async () => await create(agent, capsuleIds.create(), { snapshotId })

describe('a saved state with', () => {
  for (const { title, file, damage, code, says } of cases) {
    it(`${title} is refused by name, and works again when the file is put right`, async () => {
      const uses: readonly [string, () => Promise<unknown>][] = [
        [await generation(), () => subject.resume()],
        [at('capsules', subject.id, 'checkpoints', checkpointId), rollback],
        [at('snapshots', snapshotId), startFrom],
      ]
      for (const [dir, use] of uses) {
        const putRight = await damage(join(dir, file))
        try {
          const refused = await refusal(use())
          expect(refused).toEqual({ code, message: expect.stringContaining(says) })
          expect(await subject.state()).toBe('paused')
        } finally {
          await putRight()
        }
      }
      await world.bystander.expectIntact()
    })
  }

  it('a missing layer is refused by name, and works again when the layer is back', async () => {
    const { image } = JSON.parse(await readFile(join(await generation(), 'manifest.json'), 'utf8'))
    const putRight = await gone(at(image.agentPath))
    try {
      const expected = { code: 'snapshot_damaged', message: expect.stringContaining(image.agentPath) }
      expect(await refusal(subject.resume())).toEqual(expected)
      expect(await refusal(rollback())).toEqual(expected)
      expect(await refusal(startFrom())).toEqual(expected)
      await world.bystander.expectIntact()
    } finally {
      await putRight()
    }
  })

  it('everything put right resumes as it was', async () => {
    await subject.resume()
    await subject.expectIntact()
  })
})

describe('a host agent that starts', () => {
  it('over damaged manifests serves everybody else', async () => {
    await subject.pause()
    const broken = rewritten(() => '{')
    const putRight = [
      await broken(join(await generation(), 'manifest.json')),
      await broken(at('snapshots', snapshotId, 'manifest.json')),
    ]
    await agent.restart()
    await world.bystander.expectIntact()
    expect(await refusal(subject.resume())).toMatchObject({ code: 'snapshot_damaged' })
    for (const put of putRight) await put()
    await subject.resume()
    await subject.expectIntact()
    const capsuleId = capsuleIds.create()
    await create(agent, capsuleId, { snapshotId })
    await agent.client.destroyCapsule({ capsuleId })
  })
})
