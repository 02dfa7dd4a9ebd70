import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { TestMachine } from '../../testing/test-machine.js'
import type { EgressPolicy } from '../types.js'

const narrow: EgressPolicy = { internet: false, allow: ['203.0.113.0/24'], deny: [] }
const wide: EgressPolicy = { internet: true, allow: [], deny: ['198.51.100.7'] }

let host: TestMachine

beforeEach(async () => {
  host = await TestMachine.create()
})
afterEach(async () => {
  await host[Symbol.asyncDispose]()
})

describe('what a capsule may reach', () => {
  /** The policy of the slot that its guest is in. */
  const inForce = (manager: Awaited<ReturnType<TestMachine['start']>>['manager'], capsuleId: string) =>
    host.policies.get(manager.get(capsuleId)?.resources?.slotIndex ?? -1)

  it('changes for a running guest, and the newest revision wins', async () => {
    const { manager, capsuleId } = await host.startWithCapsule()
    await manager.setEgress(capsuleId, narrow, 2)
    expect(inForce(manager, capsuleId)).toEqual(narrow)
    expect(await manager.setEgress(capsuleId, wide, 1)).toMatchObject({ egress: narrow, egressRevision: 2 })
    expect(inForce(manager, capsuleId)).toEqual(narrow)
    await manager.setEgress(capsuleId, wide, 3)
    expect(inForce(manager, capsuleId)).toEqual(wide)
  })

  it('changes while it is paused, and holds when it goes on', async () => {
    const { manager, capsuleId } = await host.startWithCapsule()
    await manager.pause(capsuleId, 'request')
    expect(await manager.setEgress(capsuleId, narrow, 1)).toMatchObject({ state: 'paused', egressRevision: 1 })
    await manager.resume(capsuleId)
    expect(inForce(manager, capsuleId)).toEqual(narrow)
  })

  it('is kept by a restart of the host agent and loaded again', async () => {
    const { manager, capsuleId } = await host.startWithCapsule()
    await manager.setEgress(capsuleId, narrow, 1)
    await manager.detach()
    host.policies.clear()
    const next = await host.start()
    await next.hotPool.close()
    expect(next.manager.get(capsuleId)).toMatchObject({ egress: narrow, egressRevision: 1 })
    expect(inForce(next.manager, capsuleId)).toEqual(narrow)
  })

  it('comes into force with rules whatever the guest does, and forgets what they set when the host agent ends', async () => {
    const { manager, capsuleId } = await host.startWithCapsule()
    const rules = [{ host: 'api.example', headers: { authorization: 'a secret' } }]
    await manager.setEgress(capsuleId, { ...wide, intercept: true, rules }, 1)
    const { authority } = inForce(manager, capsuleId) ?? {}
    expect(authority?.cert).toContain('BEGIN CERTIFICATE')
    expect(host.agents.get(capsuleId)?.trusted).toEqual([authority?.cert.trim()])
    expect(host.agents.get(capsuleId)?.identities.at(-1)).toMatchObject({ envs: { SSL_CERT_FILE: expect.any(String) } })
    expect(inForce(manager, capsuleId)).toEqual({ ...wide, intercept: true, rules, authority })
    await manager.setEgress(capsuleId, wide, 2)
    expect(inForce(manager, capsuleId)).toEqual({ ...wide, authority })
    await manager.setEgress(capsuleId, { ...wide, intercept: true, rules }, 3)
    expect(inForce(manager, capsuleId)).toMatchObject({ rules, authority })
    await manager.detach()
    const next = await host.start()
    await next.hotPool.close()
    expect(next.manager.get(capsuleId)?.egressRevision).toBe(0)
    expect(inForce(next.manager, capsuleId)).toEqual({ ...wide, intercept: true, authority })
  })

  it('holds up nothing else while a guest does not come to trust its authority', async () => {
    const { manager, capsuleId } = await host.startWithCapsule()
    const agent = host.agents.get(capsuleId)
    agent?.mute()
    let isTold = false
    const told = manager.setEgress(capsuleId, { ...wide, intercept: true, rules: [] }, 1).then(() => {
      isTold = true
    })
    await host.until(() => inForce(manager, capsuleId)?.intercept)
    await manager.setEgress(capsuleId, narrow, 2)
    expect(isTold).toBe(false)
    expect(inForce(manager, capsuleId)).toMatchObject(narrow)
    agent?.unmute()
    await told
  })

  it('is not changed by a rollback: it belongs to the capsule, not to a point in time', async () => {
    const { manager, capsuleId } = await host.startWithCapsule()
    const checkpointId = `cp-${'0'.repeat(25)}`
    await manager.points.create(capsuleId, checkpointId)
    await manager.setEgress(capsuleId, narrow, 1)
    await manager.points.rollback(capsuleId, checkpointId)
    expect(manager.get(capsuleId)).toMatchObject({ egress: narrow, egressRevision: 1 })
    expect(inForce(manager, capsuleId)).toEqual(narrow)
  })

  it('is learned over pauses and rollbacks, until the learning ends', async () => {
    const { manager, capsuleId } = await host.startWithCapsule()
    const use = (name: string): void => {
      const used = { protocol: 'tcp', name, namedBy: 'connection', address: '9.9.9.9', port: 443, count: 1 } as const
      const index = manager.get(capsuleId)?.resources?.slotIndex ?? -1
      host.learned.set(index, { destinations: [used], isComplete: true })
    }
    const names = async () => (await manager.learned(capsuleId)).destinations.map(({ name, count }) => [name, count])
    use('before.example')
    expect(await names()).toEqual([])
    await manager.setEgress(capsuleId, { ...wide, learn: true }, 1)
    use('a.example')
    await manager.pause(capsuleId, 'request')
    expect(await names()).toEqual([['a.example', 1]])
    await manager.resume(capsuleId)
    use('b.example')
    const checkpointId = `cp-${'0'.repeat(25)}`
    await manager.points.create(capsuleId, checkpointId)
    await manager.points.rollback(capsuleId, checkpointId)
    use('a.example')
    await expect.poll(names).toEqual([
      ['a.example', 2],
      ['b.example', 1],
    ])
    await manager.setEgress(capsuleId, wide, 2)
    expect(await names()).toEqual([])
    await manager.setEgress(capsuleId, { ...wide, learn: true }, 3)
    expect(await names()).toEqual([['a.example', 1]])
  })

  it('stays as it was when it cannot be kept', async () => {
    const { manager, capsuleId } = await host.startWithCapsule()
    await manager.setEgress(capsuleId, narrow, 1)
    const never = { ...wide, allow: ['127.0.0.1'] }
    await expect(manager.setEgress(capsuleId, never, 2)).rejects.toMatchObject({ code: 'invalid_request' })
    host.policyFails = true
    await expect(manager.setEgress(capsuleId, wide, 2)).rejects.toMatchObject({ code: 'engine_failure' })
    expect(manager.get(capsuleId)).toMatchObject({ egress: narrow, egressRevision: 1 })
    host.policyFails = false
    await manager.setEgress(capsuleId, wide, 2)
    expect(inForce(manager, capsuleId)).toEqual(wide)
  })
})
