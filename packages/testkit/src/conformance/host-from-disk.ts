import { describe, expect, it } from 'vitest'
import { checkpoint, pause, type TestHost } from './test-host.js'
import { Witnesses } from './witnesses.js'

const fromDisk = { envs: { KEPT: 'given again' }, defaultUser: '', defaultCwd: '' }

/** Starting from files alone, where the memory is lost or not wanted. */
export function describeFromDisk(host: TestHost): void {
  describe('a start from the disk', { timeout: host.timeoutMs }, () => {
    it('keeps files written just before the pause, and no process; the capsule is as usable as before', async () => {
      const capsule = await host.create()
      const { client, id: capsuleId } = capsule
      await new Witnesses().start(capsule)
      await capsule.output('mkdir -p kept && printf before > kept/file')
      await pause(capsule)
      const { capsule: resumed } = await client.resumeCapsule({ capsuleId, fromDisk })
      expect(resumed).toMatchObject({ capsuleId, state: 'running', notice: expect.stringContaining('from its disk') })
      expect(await capsule.tags()).toEqual([])
      expect(await capsule.output('cat kept/file; echo " $KEPT"')).toBe('before given again')
      await capsule.output('printf after > kept/file')
      await pause(capsule)
      await client.resumeCapsule({ capsuleId })
      expect(await capsule.output('cat kept/file')).toBe('after')
    })

    it('brings back one whose guest ended, with what it had written and without a saved state', async () => {
      const capsule = await host.create()
      await capsule.output('printf left > file; sync file')
      await host.endGuest(capsule)
      await host.client.resumeCapsule({ capsuleId: capsule.id, fromDisk })
      expect(await capsule.output('cat file')).toBe('left')
    })

    it('of a checkpoint has its files, and none of the processes of then or now', async () => {
      const capsule = await host.create()
      const { client, id: capsuleId } = capsule
      await capsule.launch('while :; do sleep 1; done', 'then')
      await capsule.output('printf then > file')
      const { checkpointId = '' } = (await checkpoint(capsule)) ?? {}
      await capsule.output('printf now > file')
      const { capsule: rolledBack } = await client.rollbackCapsule({ capsuleId, checkpointId, fromDisk })
      expect(rolledBack).toMatchObject({ state: 'running', checkpointId })
      expect(await capsule.tags()).toEqual([])
      expect(await capsule.output('cat file')).toBe('then')
    })
  })
}
