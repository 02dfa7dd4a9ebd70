import { capsuleIds } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { failure, type TestCapsule } from './host-client.js'
import { checkpoint, pause, resume, SHAPE, stateOf, type TestHost } from './test-host.js'
import { Witnesses } from './witnesses.js'

/** Copies of a capsule that run beside it. */
export function describeFork(host: TestHost): void {
  describe('a fork', { timeout: host.timeoutMs }, () => {
    const copiesOf = (ids: string[], envs: Record<string, string> = {}) =>
      ids.map((capsuleId, index) => ({ capsuleId, hostname: `copy-${index}`, generation: 1n, envs }))
    const fork = async (source: TestCapsule, ids: string[], envs: Record<string, string> = {}) =>
      await source.client.forkCapsule({ capsuleId: source.id, copies: copiesOf(ids, envs) })

    it("has its source's memory, processes, files and environment; both go on, each for itself", async () => {
      const source = await host.create()
      const witnesses = new Witnesses()
      await witnesses.start(source)
      await source.write('file', 'from the source')
      const counted = await witnesses.count(source)
      const ids = [capsuleIds.create(), capsuleIds.create()]
      const copies = ids.map((id) => host.known(id))
      const { capsules, pauseWindowMs } = await fork(source, ids, { ADDED: 'too' })
      expect(capsules.map(({ capsuleId }) => capsuleId)).toEqual(ids)
      expect(pauseWindowMs).toBeGreaterThan(0)
      for (const capsule of capsules) expect(capsule).toMatchObject({ state: 'running', parentId: source.id, ...SHAPE })
      for (const copy of copies) {
        await witnesses.recall(copy)
        expect(await witnesses.count(copy, counted)).toBeGreaterThan(counted)
        expect(await copy.tags()).toEqual(['counter', 'memory'])
        expect(await copy.read('file')).toBe('from the source')
        expect(await copy.output('echo $KEPT $ADDED')).toBe('yes too')
        await copy.write('file', copy.id)
      }
      for (const copy of copies) expect(await copy.read('file')).toBe(copy.id)
      expect(await source.read('file')).toBe('from the source')
      expect(await source.output('echo $KEPT $ADDED')).toBe('yes')
      await witnesses.recall(source)
      expect(await witnesses.count(source, counted)).toBeGreaterThan(counted)
    })

    it('is made once however often it is asked for, and not at all when an id is taken', async () => {
      const source = await host.create()
      const ids = [capsuleIds.create()]
      const copies = ids.map((id) => host.known(id))
      await fork(source, ids)
      await copies[0]?.write('mark', 'made before')
      expect((await fork(source, ids)).capsules.map(({ capsuleId }) => capsuleId)).toEqual(ids)
      expect(await copies[0]?.read('mark')).toBe('made before')
      const other = host.known(capsuleIds.create())
      expect(await failure(fork(source, [other.id, ...ids]))).toBe('conflict')
      expect(await failure(source.client.getCapsule({ capsuleId: other.id }))).toBe('capsule_not_found')
    })

    it('runs when its source is paused, which stays so', async () => {
      const source = await host.create()
      const witnesses = new Witnesses()
      await witnesses.start(source)
      await pause(source)
      const copy = host.known(capsuleIds.create())
      await fork(source, [copy.id])
      await witnesses.recall(copy)
      expect(await stateOf(source)).toBe('paused')
      await resume(source)
      await witnesses.recall(source)
    })

    it('of a checkpoint has what its source had then, outlives it, and leaves its source as it is', async () => {
      const source = await host.create()
      const { client, id: capsuleId } = source
      const witnesses = new Witnesses()
      await witnesses.start(source)
      await source.write('file', 'then')
      const { checkpointId } = await checkpoint(source)
      await source.write('file', 'now')
      const copies = [capsuleIds.create(), capsuleIds.create()].map((id) => host.known(id))
      const ids = copies.map(({ id }) => id)
      const forked = await client.forkCapsule({ capsuleId, checkpointId, copies: copiesOf(ids) })
      expect(forked.pauseWindowMs).toBe(0)
      await client.deleteCheckpoint({ capsuleId, checkpointId })
      for (const copy of copies) {
        expect(await copy.read('file')).toBe('then')
        await witnesses.recall(copy)
        await witnesses.count(copy)
      }
      expect(await source.read('file')).toBe('now')
      await witnesses.recall(source)
      const late = host.known(capsuleIds.create())
      const again = client.forkCapsule({ capsuleId, checkpointId, copies: copiesOf([late.id]) })
      expect(await failure(again)).toBe('checkpoint_not_found')
      expect(await failure(client.getCapsule({ capsuleId: late.id }))).toBe('capsule_not_found')
    })

    host.onMachines('has a name, an id and random numbers of its own', async () => {
      const source = await host.create()
      const copies = [host.known(capsuleIds.create()), host.known(capsuleIds.create())]
      await fork(
        source,
        copies.map(({ id }) => id),
      )
      const three = [source, ...copies]
      const questions = [
        'cat /proc/sys/kernel/hostname',
        'cat /etc/machine-id',
        'head -c 32 /dev/urandom | od -An -tx1',
        'python3 -c "import random, secrets; print(random.random(), secrets.token_hex(16))"',
      ]
      for (const question of questions) {
        const answers = await Promise.all(three.map((capsule) => capsule.output(question)))
        expect(new Set(answers).size, `${question}: ${answers.join(' | ')}`).toBe(three.length)
      }
      expect(await copies[1]?.output('hostname')).toBe('copy-1')
    })
  })
}
