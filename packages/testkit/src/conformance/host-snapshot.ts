import { createHash } from 'node:crypto'
import { capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { readTemplateTail, TEMPLATE_SEAL_BYTES, TEMPLATE_TAIL_BYTES } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { failure } from './host-client.js'
import { checkpoint, pause, SHAPE, stateOf, type TestHost } from './test-host.js'
import { Witnesses } from './witnesses.js'

/** Templates made of capsules. */
export function describeSnapshot(host: TestHost): void {
  describe('a snapshot', { timeout: host.timeoutMs }, () => {
    it('starts new capsules with its files and processes and their own environment; its source stays', async () => {
      const source = await host.create()
      const { client } = source
      const witnesses = new Witnesses()
      await witnesses.start(source)
      await source.write('file', 'kept')
      const snapshotId = snapshotIds.create()
      const { snapshot } = await client.createSnapshot({ capsuleId: source.id, snapshotId })
      try {
        expect(snapshot).toMatchObject({ snapshotId, sourceCapsuleId: source.id, ...SHAPE })
        expect((await client.listSnapshots({})).snapshots.map((one) => one.snapshotId)).toContain(snapshotId)
        const again = await client.createSnapshot({ capsuleId: source.id, snapshotId })
        expect(again.snapshot?.createdAtMs).toBe(snapshot?.createdAtMs)
        await source.write('file', 'changed later')
        const capsule = await host.create({ snapshotId, verified: true, envs: { KEPT: 'other', OWN: 'new' } })
        expect((await client.getCapsule({ capsuleId: capsule.id })).capsule).toMatchObject({
          state: 'running',
          snapshotId,
        })
        expect(await capsule.read('file')).toBe('kept')
        expect(await capsule.output('echo $KEPT $OWN')).toBe('other new')
        await witnesses.recall(capsule)
        await witnesses.count(capsule)
        await witnesses.recall(source)
        expect(await source.output('cat file; echo; echo $KEPT $OWN')).toBe('changed later\nyes')
        if (host.isMachine) {
          const identity = 'cat /proc/sys/kernel/hostname /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1'
          const [mine, its] = [await capsule.output(identity), await source.output(identity)]
          for (const [index, line] of mine.split('\n').entries()) expect(line).not.toBe(its.split('\n')[index])
        }
        expect(await client.deleteSnapshot({ snapshotId })).toMatchObject({ existed: true })
        expect(await client.deleteSnapshot({ snapshotId })).toMatchObject({ existed: false })
        expect(await capsule.read('file')).toBe('kept')
        const late = { capsuleId: capsuleIds.create(), ...SHAPE, snapshotId }
        expect(await failure(client.createCapsule(late))).toBe('template_not_found')
      } finally {
        await client.deleteSnapshot({ snapshotId })
      }
    })

    it('is an archive that says at its end what it is of, and that it is whole', async () => {
      const source = await host.create()
      const { client, id: capsuleId } = source
      const snapshotId = snapshotIds.create()
      await client.createSnapshot({ capsuleId, snapshotId })
      try {
        const setup = { user: 'user', cwd: '/srv', envs: { COLOUR: 'red' }, startCommand: 'serve', readyCommand: '' }
        const chunks: Uint8Array[] = []
        const parts: (string | undefined)[] = []
        for await (const { part } of client.exportSnapshot({ snapshotId, name: 'web', setup })) {
          parts.push(part.case)
          if (part.case === 'chunk') chunks.push(part.value)
        }
        expect(parts[0]).toBe('begin')
        expect(parts.slice(1).every((one) => one === 'chunk')).toBe(true)
        const archive = Buffer.concat(chunks)
        const digest = createHash('sha256').update(archive.subarray(0, -TEMPLATE_SEAL_BYTES)).digest()
        const tail = readTemplateTail(archive.subarray(-TEMPLATE_TAIL_BYTES))
        expect(tail).toEqual({ version: 1, name: 'web', digest: new Uint8Array(digest) })
        const none = client.exportSnapshot({ snapshotId: snapshotIds.create(), name: 'web', setup })
        expect(await failure(none[Symbol.asyncIterator]().next())).toBe('template_not_found')
      } finally {
        await client.deleteSnapshot({ snapshotId })
      }
    })

    it('of a checkpoint starts new capsules as their source was then', async () => {
      const source = await host.create()
      const { client, id: capsuleId } = source
      const witnesses = new Witnesses()
      await witnesses.start(source)
      await source.write('file', 'then')
      const { checkpointId } = await checkpoint(source)
      await source.write('file', 'now')
      await pause(source)
      const snapshotId = snapshotIds.create()
      const { snapshot } = await client.createSnapshot({ capsuleId, snapshotId, checkpointId })
      try {
        expect(snapshot).toMatchObject({ snapshotId, sourceCapsuleId: capsuleId, ...SHAPE })
        expect(await stateOf(source)).toBe('paused')
        await source.destroy()
        const capsule = await host.create({ snapshotId })
        expect(await capsule.read('file')).toBe('then')
        await witnesses.recall(capsule)
      } finally {
        await client.deleteSnapshot({ snapshotId })
      }
    })

    it('of a checkpoint that is not there is none', async () => {
      const { client, id: capsuleId } = await host.create()
      const asked = { capsuleId, snapshotId: snapshotIds.create(), checkpointId: checkpointIds.create() }
      expect(await failure(client.createSnapshot(asked))).toBe('checkpoint_not_found')
      expect((await client.listSnapshots({})).snapshots.map((one) => one.snapshotId)).not.toContain(asked.snapshotId)
    })

    it('of a paused capsule leaves it paused, and outlives it', async () => {
      const source = await host.create()
      const { client } = source
      await source.write('file', 'kept')
      await pause(source)
      const snapshotId = snapshotIds.create()
      await client.createSnapshot({ capsuleId: source.id, snapshotId })
      try {
        expect(await stateOf(source)).toBe('paused')
        await source.destroy()
        expect(await (await host.create({ snapshotId })).read('file')).toBe('kept')
      } finally {
        await client.deleteSnapshot({ snapshotId })
      }
    })
  })
}
