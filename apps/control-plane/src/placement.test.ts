import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { waitFor } from '@wrenn/base'
import type { AuditPage, Capsule, ErrorBody, Host, Template, TemplateBuild } from '@wrenn/protocol'
import { FakeHost } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { followBuild } from './testing/followed-build.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'
import { type JoinedMachine, joinAnew, untilOnline } from './testing/joined-host.js'

const LONG_MS = 240_000
const ENV = {
  WRENN_HOST_AGENT_ADDRESS: 'joined',
  WRENN_ENCRYPTION_KEY: '11'.repeat(32),
  WRENN_QUOTA_CREATING_CAPSULES: '0',
  WRENN_QUOTA_RUNNING_CAPSULES: '0',
  // Each fake host has 2 CPUs and 8 GiB: room for 7 capsules of 1 GiB.
  WRENN_HOST_VCPUS_PER_CPU: '10',
  WRENN_HOST_MEMORY_PERCENT: '90',
}
const PER_HOST = 7
const BIG = { vcpus: 1, memory_mb: 1024 }

let platform: Platform
let second: ControlPlane
let a: JoinedMachine
let b: JoinedMachine

beforeAll(async () => {
  platform = await startPlatform({ env: ENV })
  second = await startReplica(platform, ENV)
  a = await joinAnew(platform, platform.host)
  b = await joinAnew(platform, await FakeHost.start())
  await untilOnline(platform)
}, LONG_MS)
afterAll(async () => {
  await second[Symbol.asyncDispose]()
  for (const { door } of [a, b]) await door[Symbol.asyncDispose]()
  await b.fake[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})

const post = async (path: string, body: object = {}): Promise<Response> => await platform.call('POST', path, body)
const endAll = async (capsules: readonly Capsule[]): Promise<void> => {
  await Promise.all(capsules.map(({ id }) => platform.call('DELETE', `/v1/capsules/${id}`)))
}
const live = async (): Promise<Capsule[]> =>
  await json<Capsule[]>(await platform.call('GET', '/v1/capsules?limit=100'), 200)
/** How many capsules each host has. */
const held = async (): Promise<Map<string, number>> => {
  const counts = new Map<string, number>()
  for (const { host_id: id = 'none', state } of await live())
    if (state !== 'error') counts.set(id, (counts.get(id) ?? 0) + 1)
  return counts
}
const errorOf = async (response: Response): Promise<[status: number, code: string, message: string]> => {
  const { code, message } = ((await response.json()) as ErrorBody).error
  return [response.status, code, message]
}

async function cordoned(id: string, work: () => Promise<void>): Promise<void> {
  expect(await json<Host>(await post(`/v1/hosts/${id}/cordon`), 200)).toMatchObject({ id, schedulable: false })
  try {
    await work()
  } finally {
    expect(await json<Host>(await post(`/v1/hosts/${id}/uncordon`), 200)).toMatchObject({ id, schedulable: true })
  }
}

describe('a create among several hosts', () => {
  it(
    'overfills none, of a hundred at once through two control planes',
    async () => {
      const headers = { 'x-api-key': platform.key, 'content-type': 'application/json' }
      const asked = Array.from({ length: 100 }, async (_, index) => {
        const url = index % 2 === 0 ? platform.url : second.url
        return await fetch(`${url}/v1/capsules`, { method: 'POST', headers, body: JSON.stringify(BIG) })
      })
      const statuses = new Set((await Promise.all(asked)).map(({ status }) => status))
      expect(statuses).toContain(201)
      // A busy machine refuses some before they are placed, or loses the answer: what counts is what there is.
      for (const count of (await held()).values()) expect(count).toBeLessThanOrEqual(PER_HOST)
      for (let code = ''; code !== 'no_hosts_available'; ) {
        const answer = await post('/v1/capsules', BIG)
        if (answer.status !== 201) code = (await errorOf(answer))[1]
      }
      const full = [a, b].map(({ id }) => [id, PER_HOST] as const)
      expect(await held()).toEqual(new Map(full))
      for (const { fake } of [a, b]) await expect.poll(() => fake.capsules.size, { timeout: 60_000 }).toBe(PER_HOST)
      const [, , message] = await errorOf(await post('/v1/capsules', BIG))
      expect(message).toMatch(
        /^No host has room for 1 vCPUs and 1024 MiB: the freest, host-\w+, has \d+ vCPUs and 204 MiB left\.$/,
      )
      await endAll(await live())
    },
    LONG_MS,
  )

  it(
    'goes where the most room is, and says why',
    async () => {
      const [first, next] = [await platform.create(BIG), await platform.create(BIG)]
      expect(new Set([first.host_id, next.host_id])).toEqual(new Set([a.id, b.id]))
      const page = await json<AuditPage>(await platform.call('GET', `/v1/audit-logs?resource_id=${first.id}`), 200)
      const created = page.items.find(({ action, outcome }) => action === 'capsule.create' && outcome === 'accepted')
      expect(created?.details).toMatchObject({
        host_id: first.host_id,
        host_because: expect.stringMatching(/^\d+ % of its (?:memory|CPUs|pool) is free, of 2 hosts$/),
      })
      await endAll([first, next])
    },
    LONG_MS,
  )

  it(
    'gives a cordoned host nothing new, and nobody anything when all are',
    async () => {
      await cordoned(a.id, async () => {
        const made = [await platform.create(), await platform.create(), await platform.create()]
        expect(made.map(({ host_id: on }) => on)).toEqual([b.id, b.id, b.id])
        await cordoned(b.id, async () => {
          const [status, code, message] = await errorOf(await post('/v1/capsules'))
          expect([status, code]).toEqual([503, 'no_hosts_available'])
          expect(message).toContain(`${a.id} is cordoned, ${b.id} is cordoned`)
          // What is there goes on.
          const [{ id } = { id: '' }] = made
          await json(await post(`/v1/capsules/${id}/pause`), 200)
          await json(await post(`/v1/capsules/${id}/resume`), 200)
          const forked = await json<{ capsules: Capsule[] }>(await post(`/v1/capsules/${id}/fork`), 201)
          expect(forked.capsules.map(({ host_id: on }) => on)).toEqual([b.id])
          await endAll(forked.capsules)
        })
        await endAll(made)
      })
      const page = await json<AuditPage>(await platform.call('GET', '/v1/admin/audit-logs?resource_type=host'), 200)
      const told = page.items.filter(({ resource_id: id }) => id === a.id).map(({ action }) => action)
      expect(told.slice(0, 2)).toEqual(['host.uncordon', 'host.cordon'])
      expect((await post(`/v1/hosts/host-${'0'.repeat(25)}/cordon`)).status).toBe(404)
      expect((await post(`/v1/hosts/${a.id}/uncordon`)).status).toBe(200)
    },
    LONG_MS,
  )

  it(
    'of a template goes to the host that has it, or says which that is and why it cannot',
    async () => {
      let source: Capsule | undefined
      await cordoned(b.id, async () => {
        source = await platform.create()
      })
      await json(await post('/v1/snapshots', { capsule_id: source?.id, name: 'of-a' }), 201)
      const made = [await platform.create({ template: 'of-a' }), await platform.create({ template: 'of-a' })]
      expect(made.map(({ host_id: on }) => on)).toEqual([a.id, a.id])
      await cordoned(a.id, async () => {
        expect(await errorOf(await post('/v1/capsules', { template: 'of-a' }))).toEqual([
          503,
          'no_hosts_available',
          `The template "of-a" is on ${a.id} alone, which is cordoned.`,
        ])
      })
      await endAll(made)
      if (source !== undefined) await endAll([source])
      expect((await platform.call('DELETE', '/v1/snapshots/of-a')).status).toBe(204)
    },
    LONG_MS,
  )

  it(
    'goes to no host that has said it lacks the built-in template',
    async () => {
      b.fake.templates = [...b.fake.templates, { name: 'of-b', aliases: [] }]
      // Each control plane asks for itself.
      const isListed = async (): Promise<boolean> => {
        const templates = await json<Template[]>(await platform.call('GET', '/v1/snapshots'), 200)
        return templates.some(({ name }) => name === 'of-b')
      }
      const hasIt = async () =>
        (await Promise.all([isListed(), isListed(), isListed(), isListed()])).every(Boolean) || undefined
      await waitFor(hasIt, { timeoutMs: 60_000, what: 'the template to be known' })
      const made = [await platform.create({ template: 'of-b' }), await platform.create({ template: 'of-b' })]
      expect(made.map(({ host_id: on }) => on)).toEqual([b.id, b.id])
      await endAll(made)
    },
    LONG_MS,
  )
})

describe('tags of hosts', () => {
  const tag = async (id: string, tags: readonly string[]): Promise<Host> =>
    await json<Host>(await platform.call('PUT', `/v1/hosts/${id}/tags`, { tags }), 200)

  it(
    'lead creates and builds to hosts that have all that are asked for, or it is said which no host has',
    async () => {
      expect((await tag(a.id, ['gpu', 'eu', 'gpu'])).tags).toEqual(['eu', 'gpu'])
      expect((await tag(b.id, ['us', 'gpu'])).tags).toEqual(['gpu', 'us'])
      const made: Capsule[] = []
      for (const host_tags of [['eu'], ['eu', 'gpu'], ['eu']]) made.push(await platform.create({ host_tags }))
      expect(made.map(({ host_id: on }) => on)).toEqual([a.id, a.id, a.id])
      made.push(await platform.create({ host_tags: ['gpu'] })) // the freer one
      expect(made.at(-1)?.host_id).toBe(b.id)
      const refused = async (body: object) => await errorOf(await post('/v1/capsules', body))
      expect(await refused({ host_tags: ['gpu', 'fpga', 'eu'] })).toEqual([
        503,
        'no_hosts_available',
        'No host has the tag fpga; an admin of the platform gives it by `wrenn host tag`.',
      ])
      const [, , together] = await refused({ host_tags: ['eu', 'us'] })
      expect(together).toContain('No host has the tags eu and us together: ')
      expect(together).toContain(`${a.id} lacks the tag us`)
      expect((await post('/v1/capsules', { host_tags: ['No'] })).status).toBe(400)
      await cordoned(a.id, async () => {
        const [status, , message] = await refused({ host_tags: ['eu'] })
        expect(status).toBe(503)
        expect(message).toContain(`${a.id} is cordoned, ${b.id} lacks the tag eu`)
      })
      await endAll(made)

      const stages = [{ from: 'base', steps: [] }]
      for (const [host_tags, id] of [
        [['us'], b.id],
        [['eu'], a.id],
      ] as const) {
        const name = `for-${host_tags[0]}`
        const begun = await json<TemplateBuild>(await post('/v1/templates/builds', { name }), 201)
        await json(await post(`/v1/templates/builds/${begun.id}/start`, { stages, host_tags }), 202)
        expect((await followBuild(platform, begun)).build.state).toBe('ready')
        const of = await platform.create({ template: name })
        expect(of.host_id).toBe(id)
        await endAll([of])
      }
      const [, code, bound] = await refused({ template: 'for-us', host_tags: ['eu'] })
      expect([code, bound]).toEqual([
        'no_hosts_available',
        `The template "for-us" is on ${b.id} alone, which lacks the tag eu.`,
      ])
      for (const { id } of [a, b]) expect((await tag(id, [])).tags).toEqual([])
      const page = await json<AuditPage>(await platform.call('GET', '/v1/admin/audit-logs?action=host.tag'), 200)
      expect(page.items.map(({ details }) => details?.tags)).toEqual(['', '', 'gpu us', 'eu gpu'])
    },
    LONG_MS,
  )
})

describe('a build among several hosts', () => {
  it(
    'passes over what was kept on a host that takes nothing, while another one does, and does not forget it',
    async () => {
      const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-passed-over-'))
      const flag = join(dir, 'flag')
      const workdir = { type: 'WORKDIR', args: ['/app'] }
      const run = (line: string) => ({ type: 'RUN', args: [line] })
      const stages = [{ from: 'base', steps: [workdir, run(`cat ${flag} > one`), run('echo 2 > two')] }]
      const build = async () => {
        const begun = await json<TemplateBuild>(await post('/v1/templates/builds', { name: 'passed-over' }), 201)
        await json(await post(`/v1/templates/builds/${begun.id}/start`, { stages }), 202)
        const { build: done, messages } = await followBuild(platform, begun)
        const cached = messages.filter((message) => message.startsWith('CACHED')).length
        return { state: done.state, cached, text: messages.join('\n') }
      }
      await writeFile(flag, '1')
      await cordoned(b.id, async () => expect(await build()).toMatchObject({ state: 'ready', cached: 0 }))
      await rm(flag)
      await cordoned(a.id, async () => {
        const passed = await build()
        // What the first step needs is not there any more: so it was done again.
        expect(passed, passed.text).toMatchObject({ state: 'error', cached: 0 })
        expect(passed.text).toContain(`stays on ${a.id}, which takes no capsule now`)
      })
      expect(await build()).toMatchObject({ state: 'ready', cached: 3 })

      await writeFile(flag, '1')
      const full: Capsule[] = []
      await cordoned(b.id, async () => {
        while (full.length < PER_HOST) full.push(await platform.create(BIG))
      })
      const done = await build()
      expect(done, done.text).toMatchObject({ state: 'ready', cached: 0 })
      await endAll(full)
      const made = await platform.create({ template: 'passed-over' })
      expect(made.host_id).toBe(b.id)
      await endAll([made])
      await rm(dir, { recursive: true })
    },
    LONG_MS,
  )
})
