import { AppError, capsuleIds, hostIds, snapshotIds } from '@wrenn/base'
import { FakeHost } from '@wrenn/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { fromHostError, isConnectionLoss, isNeverSent } from './errors.js'
import { Hosts, type Whereabouts } from './hosts.js'
import { linkHost } from './link.js'
import type { Named } from './named.js'

const [A, B, AWAY, GONE] = [hostIds.create(), hostIds.create(), hostIds.create(), hostIds.create()]
const { signal } = new AbortController()

let fakes: readonly [FakeHost, FakeHost]
let hosts: Hosts
const places = new Map<string, string | null>()
let looks = 0

const whereabouts: Whereabouts = {
  hostOf: async ({ id }: Named) => {
    looks++
    return places.get(id)
  },
  isUnplaced: async () => true,
  isGone: async (id) => id === GONE,
}

beforeAll(async () => {
  fakes = [await FakeHost.start(), await FakeHost.start()]
})
afterAll(async () => {
  for (const fake of fakes) await fake[Symbol.asyncDispose]()
})
beforeEach(() => {
  hosts = Hosts.joining(whereabouts)
  hosts.add(linkHost(fakes[0].address, { joinedId: A }))
  hosts.add(linkHost(fakes[1].address, { joinedId: B }))
  return () => hosts.close()
})

/** A capsule that runs on one of them. */
async function capsuleOn(hostId: string): Promise<string> {
  const capsuleId = capsuleIds.create()
  places.set(capsuleId, hostId)
  await hosts.client.createCapsule({ capsuleId, template: 'minimal', vcpus: 1, memoryMib: 64 })
  return capsuleId
}

/** What a call comes to. */
async function outcomeOf(capsuleId: string): Promise<string> {
  return await hosts
    .call((client) => client.getCapsule({ capsuleId }))
    .then(
      () => 'answered',
      (error: { code: string }) => error.code,
    )
}

describe('a call among several hosts', () => {
  it('goes to the host of the capsule that it names', async () => {
    const [a, b] = [await capsuleOn(A), await capsuleOn(B)]
    expect(fakes.map((fake) => [...fake.capsules.keys()])).toEqual([[a], [b]])
    expect(await outcomeOf(b)).toBe('answered')
    const asked = await hosts.client.getActivity({ capsuleIds: [b] })
    expect(asked.capsules.map(({ capsuleId }) => capsuleId)).toEqual([b])
  })

  it('goes there also when it is an upload, a download or a tunnel', async () => {
    const b = await capsuleOn(B)
    async function* parts() {
      yield { part: { case: 'open' as const, value: { capsuleId: b, path: '/tmp/x' } } }
      yield { part: { case: 'chunk' as const, value: new TextEncoder().encode('over there') } }
      yield { part: { case: 'complete' as const, value: true } }
    }
    await hosts.client.writeFile(parts())
    let read = ''
    for await (const { part } of hosts.client.readFile({ capsuleId: b, path: '/tmp/x' })) {
      if (part.case === 'chunk') read += new TextDecoder().decode(part.value)
    }
    expect(read).toBe('over there')
    const refused = hosts.openTunnel({ capsuleId: b, port: 1 }, signal)
    await expect(refused).rejects.toMatchObject({ code: 'port_closed' })
    await expect(hosts.openTunnel({ capsuleId: capsuleIds.create(), port: 1 }, signal)).rejects.toMatchObject({
      code: 'capsule_not_found',
    })
  })

  it('looks once where a capsule is, for none ever moves', async () => {
    const a = await capsuleOn(A)
    looks = 0
    await outcomeOf(a)
    await outcomeOf(a)
    expect(looks).toBe(0)
  })

  it('ends as not found for what there is not, and for what was on a host that is no more', async () => {
    const [nowhere, lost] = [capsuleIds.create(), capsuleIds.create()]
    places.set(lost, GONE)
    expect([await outcomeOf(nowhere), await outcomeOf(lost)]).toEqual(['capsule_not_found', 'capsule_not_found'])
    const snapshotId = snapshotIds.create()
    places.set(snapshotId, GONE)
    const removed = hosts.call((client) => client.deleteSnapshot({ snapshotId }))
    await expect(removed).rejects.toMatchObject({ code: 'template_not_found' })
  })

  it('waits as for any host that does not answer while that of a capsule is not known here', async () => {
    const capsuleId = capsuleIds.create()
    places.set(capsuleId, AWAY)
    expect(await outcomeOf(capsuleId)).toBe('host_unavailable')
    const thrown: unknown = await hosts.client.getCapsule({ capsuleId }).catch((error: unknown) => error)
    expect(isConnectionLoss(thrown)).toBe(true)
    await expect(hosts.openTunnel({ capsuleId, port: 1 }, signal)).rejects.toMatchObject({ code: 'host_unavailable' })
    hosts.add(linkHost(fakes[0].address, { joinedId: AWAY }))
    expect(await outcomeOf(capsuleId)).toBe('capsule_not_found') // says that host
    hosts.remove(AWAY)
    expect(await outcomeOf(capsuleId)).toBe('host_unavailable')
  })

  it('of what was recorded without a host goes to the only one there is, and among several to the one that has it', async () => {
    const capsuleId = await capsuleOn(B)
    const other = Hosts.joining({ ...whereabouts, hostOf: async () => null })
    const said = async (id: string): Promise<string> =>
      await other.client.getCapsule({ capsuleId: id }).then(
        ({ capsule }) => capsule?.capsuleId ?? '',
        (error: unknown) => fromHostError(error).code,
      )
    other.add(linkHost(fakes[0].address, { joinedId: A }))
    expect(await said(capsuleId)).toBe('capsule_not_found') // says that host
    other.add(linkHost(fakes[1].address, { joinedId: B }))
    expect(await said(capsuleId)).toBe(capsuleId)
    const nowhere = capsuleIds.create()
    expect(await said(nowhere)).toBe('capsule_not_found')
    other.add(linkHost('http://127.0.0.1:9', { joinedId: AWAY }))
    expect([await said(nowhere), await said(capsuleId)]).toEqual(['host_unavailable', capsuleId])
    other.close()
  })

  it('looks anew where a capsule is once a call to it has failed', async () => {
    const a = await capsuleOn(A)
    places.set(a, B) // it was placed anew
    await hosts.client.destroyCapsule({ capsuleId: a })
    expect(await outcomeOf(a)).toBe('capsule_not_found')
    await hosts.client.createCapsule({ capsuleId: a, template: 'minimal', vcpus: 1, memoryMib: 64 })
    expect(fakes.map(({ capsules }) => capsules.has(a))).toEqual([false, true])
  })
})

it('a call that cannot have come to its host is told from one that may have', async () => {
  await using fake = await FakeHost.start()
  const link = linkHost(fake.address)
  const failed = async (): Promise<AppError> => {
    const request = { capsuleId: capsuleIds.create(), template: 'minimal', vcpus: 1, memoryMib: 64 }
    return await link.host
      .call((client) => client.createCapsule(request))
      .then(
        () => new AppError('internal', 'It was answered.'),
        (error: AppError) => error,
      )
  }
  const told = (error: AppError) => [error.code, isNeverSent(error)]
  const held = fake.holdNext('create')
  const cut = failed()
  await held.reached
  await fake.stop()
  expect(told(await cut)).toEqual(['host_unavailable', false])
  expect(told(await failed())).toEqual(['host_unavailable', true])
  await fake.start()
  fake.failNext('create', new AppError('host_unavailable', 'It starts.'))
  expect(told(await failed())).toEqual(['host_unavailable', false])
  // Whoever says no more than that may have sent it.
  expect(isNeverSent(new AppError('host_unavailable', 'The control plane is stopping.'))).toBe(false)
  const nobody = Hosts.joining(whereabouts).whoHas(capsuleIds.create())
  expect(isNeverSent(await nobody.then(unexpected, (error: AppError) => error))).toBe(true)
  held.release()
  link.close()
})

function unexpected(): never {
  throw new Error('there is nobody to answer')
}

describe('templates of several hosts', () => {
  it('are those of all that have said theirs, and one that is silent is not waited for', async () => {
    fakes[1].templates = [...fakes[1].templates, { name: 'of-b-alone', aliases: [] }]
    hosts.add(linkHost('http://127.0.0.1:9', { joinedId: AWAY }))
    await expect.poll(async () => (await hosts.findTemplate('of-b-alone'))?.name).toBe('of-b-alone')
    expect((await hosts.templates()).filter(({ name }) => name === 'minimal')).toHaveLength(1)
    const none = Hosts.joining(whereabouts)
    await expect(none.templates()).rejects.toMatchObject({ code: 'host_unavailable' })
  })

  it('are asked of some of many, and are those that any of them has said', async () => {
    fakes[1].templates = [...fakes[1].templates, { name: 'of-one-of-many', aliases: [] }]
    const ids = Array.from({ length: 30 }, () => hostIds.create())
    for (const joinedId of ids) hosts.add(linkHost(fakes[0].address, { joinedId }))
    await hosts.get(B)?.templates()
    expect((await hosts.templates()).map(({ name }) => name)).toContain('of-one-of-many')
    expect(hosts.all.filter(({ knownTemplates }) => knownTemplates.length > 0).length).toBeLessThanOrEqual(9)
  })
})
