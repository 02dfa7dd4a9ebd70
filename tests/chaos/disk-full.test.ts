import { capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { eventually } from '../e2e/harness/wait.js'
import { audit } from './harness/audit.js'
import { Filler } from './harness/filler.js'
import { refusal, World } from './harness/world.js'

const MIB = 2 ** 20
/** Room that the host keeps in these tests: a guest here may write that much between two looks of the watch. */
const RESERVE_MIB = 1024

const world = new World().use({ WRENN_POOL_RESERVE_MIB: '1' })
const { agent, site } = world

describe('in a full pool', () => {
  it('nothing is saved, nothing is touched, the capsules run on, and all works once there is room', async () => {
    const subject = await world.subject()
    const { id: capsuleId } = subject
    const copy = { capsuleId: capsuleIds.create(), hostname: 'copy', generation: 1n }
    const saves: readonly (() => Promise<unknown>)[] = [
      () => subject.pause(),
      () => agent.client.createCheckpoint({ capsuleId, checkpointId: checkpointIds.create() }),
      () => agent.client.createSnapshot({ capsuleId, snapshotId: snapshotIds.create() }),
      () => agent.client.forkCapsule({ capsuleId, copies: [copy] }),
    ]
    {
      await using filler = new Filler(site)
      await filler.leave(200 * MIB)
      for (const save of saves) expect(await refusal(save())).toMatchObject({ code: 'disk_full' })
      await subject.expectIntact()
      await world.bystander.expectIntact()
      expect(await audit(site, agent)).toEqual({ illegal: [], leaked: [] })
    }
    await subject.pause()
    await subject.resume()
    await subject.expectIntact()
    await world.destroy(subject)
  })
})

describe('while a capsule fills the pool', () => {
  it('it is paused with the reason before the pool is full, and goes on when there is room', async () => {
    await agent.restart({ WRENN_POOL_RESERVE_MIB: String(RESERVE_MIB) })
    const subject = await world.subject()
    await using filler = new Filler(site)
    await filler.leave((RESERVE_MIB + 150) * MIB)
    await subject.capsule.launch('dd if=/dev/zero of=/root/big bs=1M count=800', 'writer')
    await world.untilState(subject, 'paused')
    const { capsule } = await agent.client.getCapsule({ capsuleId: subject.id })
    expect(capsule).toMatchObject({ pauseReason: 'pool_low' })
    expect(await filler.freeBytes()).toBeGreaterThan(0)
    await filler[Symbol.asyncDispose]()
    await agent.client.resumeCapsule({ capsuleId: world.bystander.id }) // it writes too, if only a little
    await world.bystander.expectIntact()
    await eventually('room for the capsule', async () => ((await filler.freeBytes()) > 4000 * MIB ? true : undefined))
    await subject.resume()
    await subject.expectIntact()
    await eventually(
      'the capsule to have written all',
      async () => ((await subject.capsule.output('stat -c %s /root/big')) === String(800 * MIB) ? true : undefined),
      240_000,
    )
    await subject.expectIntact()
    await world.destroy(subject)
  })
})
