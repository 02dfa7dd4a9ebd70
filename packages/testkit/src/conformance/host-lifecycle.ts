import { capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { afterEach, describe, expect, it } from 'vitest'
import { describeCheckpoint } from './host-checkpoint.js'
import { drain, failure } from './host-client.js'
import { describeDiff } from './host-diff.js'
import { describeFork } from './host-fork.js'
import { describeFromDisk } from './host-from-disk.js'
import { describePause } from './host-pause.js'
import { describeSnapshot } from './host-snapshot.js'
import { checkpoint, pause, resume, rollback, SHAPE, type TestHost } from './test-host.js'
import { Witnesses } from './witnesses.js'

const NEVER = 'while :; do sleep 1; done'

/** That capsules can be paused, copied, kept and brought back, whatever the host runs them with. */
export function describeHostLifecycle(host: TestHost): void {
  afterEach(() => host.destroyAll(), host.timeoutMs)
  describePause(host)
  describeFromDisk(host)
  describeFork(host)
  describeCheckpoint(host)
  describeDiff(host)
  describeSnapshot(host)
  describe('the lifecycle', { timeout: host.timeoutMs }, () => {
    it('answers for what does not exist with its code', async () => {
      const { client } = host
      const capsuleId = capsuleIds.create()
      const checkpointId = checkpointIds.create()
      const snapshotId = snapshotIds.create()
      const calls: Record<string, () => Promise<unknown>> = {
        pause: () => client.pauseCapsule({ capsuleId }),
        egress: () => client.setEgress({ capsuleId, revision: 1n }),
        learned: () => client.listDestinations({ capsuleId }),
        resume: () => client.resumeCapsule({ capsuleId }),
        fork: () => client.forkCapsule({ capsuleId, copies: [{ capsuleId: capsuleIds.create(), hostname: 'copy' }] }),
        checkpoint: () => client.createCheckpoint({ capsuleId, checkpointId }),
        list: () => client.listCheckpoints({ capsuleId }),
        delete: () => client.deleteCheckpoint({ capsuleId, checkpointId }),
        rollback: () => client.rollbackCapsule({ capsuleId, checkpointId }),
        diff: () => drain(client.diffCheckpoints({ capsuleId, fromCheckpointId: checkpointId })),
        snapshot: () => client.createSnapshot({ capsuleId, snapshotId }),
      }
      for (const [name, call] of Object.entries(calls))
        expect([name, await failure(call())]).toEqual([name, 'capsule_not_found'])
      expect(await client.deleteSnapshot({ snapshotId })).toMatchObject({ existed: false })
      expect(await failure(client.createCapsule({ capsuleId, ...SHAPE, snapshotId }))).toBe('template_not_found')
    })

    it('refuses ids that are none, and a rollback to a checkpoint that is none', async () => {
      const capsule = await host.create()
      const { client, id: capsuleId } = capsule
      expect(await failure(client.pauseCapsule({ capsuleId: '../x' }))).toBe('invalid_request')
      expect(await failure(client.createCheckpoint({ capsuleId, checkpointId: '../x' }))).toBe('invalid_request')
      expect(await failure(client.createSnapshot({ capsuleId, snapshotId: '../x' }))).toBe('invalid_request')
      expect(await failure(client.forkCapsule({ capsuleId, copies: [{ capsuleId: '../x' }] }))).toBe('invalid_request')
      const unknown = { capsuleId, checkpointId: checkpointIds.create() }
      expect(await failure(client.rollbackCapsule(unknown))).toBe('checkpoint_not_found')
      expect(await client.deleteCheckpoint(unknown)).toMatchObject({ existed: false })
      expect(await capsule.output('echo $KEPT')).toBe('yes')
    })

    it('keeps the newest policy of what a capsule may reach, and gives it to its copies', async () => {
      const capsule = await host.create()
      const { client, id: capsuleId } = capsule
      const set = async (revision: bigint): Promise<bigint | undefined> => {
        const egress = { internet: false, allow: ['203.0.113.0/24'] }
        return (await client.setEgress({ capsuleId, revision, egress })).capsule?.egressRevision
      }
      expect([await set(2n), await set(1n), await set(2n)]).toEqual([2n, 2n, 2n])
      const copy = host.known(capsuleIds.create())
      await client.forkCapsule({ capsuleId, copies: [{ capsuleId: copy.id, hostname: 'copy', generation: 1n }] })
      await pause(capsule)
      expect(await set(3n)).toBe(3n)
      expect((await resume(capsule))?.egressRevision).toBe(3n)
      expect((await client.getCapsule({ capsuleId: copy.id })).capsule?.egressRevision).toBe(2n)
    })

    it('has learned nothing of a capsule that does not learn, or has used nothing', async () => {
      const { client, id: capsuleId } = await host.create()
      const nothing = { destinations: [], isComplete: true }
      expect(await client.listDestinations({ capsuleId })).toMatchObject(nothing)
      await client.setEgress({ capsuleId, revision: 1n, egress: { internet: false, learn: true } })
      expect(await client.listDestinations({ capsuleId })).toMatchObject(nothing)
    })

    it('gives many callers at once one legal end', async () => {
      const capsule = await host.create()
      const witnesses = new Witnesses()
      await witnesses.start(capsule)
      const calls = Array.from({ length: 8 }, (_, index) => (index % 2 === 0 ? pause(capsule) : resume(capsule)))
      const ends = await Promise.all(calls)
      for (const [index, end] of ends.entries()) expect(end?.state).toBe(index % 2 === 0 ? 'paused' : 'running')
      await resume(capsule)
      await witnesses.recall(capsule)
    })

    it('says what keeps a running capsule awake, and nothing of a paused one', async () => {
      const capsule = await host.create()
      const { client, id } = capsule
      const reasons = async () => {
        const { capsules } = await client.getActivity({ capsuleIds: [id] })
        return capsules.find(({ capsuleId }) => capsuleId === id)?.reasons
      }
      await capsule.launch(NEVER, 'busy', { foreground: true })
      await expect.poll(reasons, { timeout: host.timeoutMs }).toContain('process')
      const process = { selector: { case: 'tag' as const, value: 'busy' } }
      await client.signalProcess({ capsuleId: id, signal: { process, signal: 9 } })
      await expect.poll(reasons, { timeout: host.timeoutMs }).not.toContain('process')
      await pause(capsule)
      expect(await reasons()).toBeUndefined()
    })

    it('collects as garbage nothing that a capsule needs', async () => {
      const [running, paused] = [await host.create(), await host.create()]
      const point = await checkpoint(running)
      await pause(paused)
      const { items } = await running.client.collectGarbage({ dryRun: true })
      for (const { name } of items) for (const { id } of [running, paused]) expect(name).not.toContain(id)
      await running.client.collectGarbage({})
      await rollback(running, point)
      await resume(paused)
      for (const capsule of [running, paused]) expect(await capsule.output('echo $KEPT')).toBe('yes')
    })
  })
}
