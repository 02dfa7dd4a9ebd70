import { describe, expect, it } from 'vitest'
import { collect, failure } from './host-client.js'
import { checkpoint, pause, resume, rollback, stateOf, type TestHost } from './test-host.js'
import { Witnesses } from './witnesses.js'

const NEVER = 'while :; do sleep 1; done'

/** Points in time to go back to. */
export function describeCheckpoint(host: TestHost): void {
  describe('a checkpoint', { timeout: host.timeoutMs }, () => {
    it('brings files, memory and processes back under the same id; later processes are gone', async () => {
      const capsule = await host.create()
      const witnesses = new Witnesses()
      await witnesses.start(capsule)
      await capsule.output('mkdir -p work/deep && echo one > work/one && echo two > work/deep/two')
      const counted = await witnesses.count(capsule)
      const point = await checkpoint(capsule)
      expect(point.pauseWindowMs).toBeGreaterThan(0)
      await witnesses.recall(capsule)
      await capsule.output('rm -rf work; echo later > later')
      await capsule.client.signalProcess({
        capsuleId: capsule.id,
        signal: { process: { selector: { case: 'tag', value: 'counter' } }, signal: 9 },
      })
      await capsule.launch(NEVER, 'later')
      expect(await rollback(capsule, point)).toMatchObject({
        capsuleId: capsule.id,
        state: 'running',
        checkpointId: point.checkpointId,
      })
      expect(await capsule.output('cat work/one work/deep/two; ls later 2>/dev/null || echo gone')).toBe(
        'one\ntwo\ngone',
      )
      expect(await capsule.tags()).toEqual(['counter', 'memory'])
      await witnesses.recall(capsule)
      expect(await witnesses.count(capsule, counted)).toBeGreaterThan(counted)
      expect(await capsule.output('echo $KEPT')).toBe('yes')
    })

    host.onMachines('brings back a capsule whose system was removed', async () => {
      const capsule = await host.create()
      const point = await checkpoint(capsule)
      await collect(capsule.shell('exec rm -rf /usr'))
      await expect(capsule.output('true')).rejects.toThrow()
      await rollback(capsule, point)
      expect(await capsule.output('python3 -c "print(6 * 7)"')).toBe('42')
    })

    it('has the one before it as its parent, also after a rollback, and goes when it is deleted', async () => {
      const capsule = await host.create()
      const { client, id: capsuleId } = capsule
      expect((await client.listCheckpoints({ capsuleId })).checkpoints).toEqual([])
      const first = await checkpoint(capsule)
      const second = await checkpoint(capsule)
      await rollback(capsule, first)
      const third = await checkpoint(capsule)
      const list = async () => (await client.listCheckpoints({ capsuleId })).checkpoints
      expect((await list()).map(({ checkpointId, parentId }) => [checkpointId, parentId])).toEqual([
        [first.checkpointId, ''],
        [second.checkpointId, first.checkpointId],
        [third.checkpointId, first.checkpointId],
      ])
      const { checkpointId } = second
      expect(await client.deleteCheckpoint({ capsuleId, checkpointId })).toMatchObject({ existed: true })
      expect(await client.deleteCheckpoint({ capsuleId, checkpointId })).toMatchObject({ existed: false })
      expect((await list()).map((one) => one.checkpointId)).toEqual([first.checkpointId, third.checkpointId])
      expect(await failure(client.rollbackCapsule({ capsuleId, checkpointId }))).toBe('checkpoint_not_found')
      expect(await stateOf(capsule)).toBe('running')
    })

    it('is made once however often it is asked for', async () => {
      const capsule = await host.create()
      await capsule.write('file', 'then')
      const first = await checkpoint(capsule)
      await capsule.write('file', 'now')
      const { checkpointId, createdAtMs } = first
      expect(await checkpoint(capsule, checkpointId)).toMatchObject({ checkpointId, createdAtMs })
      await rollback(capsule, first)
      expect(await capsule.read('file')).toBe('then')
    })

    it('makes a capsule whose guest ended run again, with all that it had then', async () => {
      const capsule = await host.create()
      const witnesses = new Witnesses()
      await witnesses.start(capsule)
      await capsule.write('file', 'first')
      const first = await checkpoint(capsule)
      await capsule.write('file', 'second')
      const second = await checkpoint(capsule)
      await capsule.write('file', 'third')
      await host.endGuest(capsule)
      expect(await failure(capsule.output('true'))).toBe('guest_died')
      const back = await rollback(capsule, first)
      expect(back).toMatchObject({ capsuleId: capsule.id, state: 'running', checkpointId: first.checkpointId })
      expect(back?.exit).toBeUndefined()
      expect(back?.lifecycleTimings.map(({ step }) => step)).toContain('restore')
      expect(await capsule.read('file')).toBe('first')
      await witnesses.recall(capsule)
      await rollback(capsule, second)
      expect(await capsule.read('file')).toBe('second')
      await pause(capsule)
      await resume(capsule)
      await witnesses.recall(capsule)
      expect(await capsule.tags()).toEqual(['counter', 'memory'])
    })

    it('that a capsule stands on is what it resumes from when its guest ended', async () => {
      const capsule = await host.create()
      await capsule.write('file', 'then')
      await checkpoint(capsule)
      await capsule.write('file', 'now')
      await host.endGuest(capsule)
      const resumed = await resume(capsule)
      expect([resumed?.state, resumed?.exit]).toEqual(['running', undefined])
      expect(resumed?.notice).not.toBe('')
      expect(await capsule.read('file')).toBe('then')
    })

    it('of a paused capsule, and a rollback of one, leave it paused', async () => {
      const capsule = await host.create()
      const witnesses = new Witnesses()
      await witnesses.start(capsule)
      await capsule.write('file', 'then')
      await pause(capsule)
      const point = await checkpoint(capsule)
      expect(await stateOf(capsule)).toBe('paused')
      await resume(capsule)
      await capsule.write('file', 'now')
      await pause(capsule)
      expect((await rollback(capsule, point))?.state).toBe('paused')
      await resume(capsule)
      expect(await capsule.read('file')).toBe('then')
      await witnesses.recall(capsule)
    })
  })
}
