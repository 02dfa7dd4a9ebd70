import type { AnyTeam, AuditPage, ErrorBody, Plan, Quota } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_QUOTA_RUNNING_CAPSULES: '5' } })
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

const put = (name: string, limits: object): Promise<Response> => platform.call('PUT', `/v1/admin/plans/${name}`, limits)
const plans = async (): Promise<Plan[]> => await json<Plan[]>(await platform.call('GET', '/v1/admin/plans'), 200)
const quota = async (): Promise<Quota> => await json<Quota>(await platform.call('GET', '/v1/quota'), 200)
async function change(limits: object, status = 200): Promise<AnyTeam> {
  const [team] = await json<AnyTeam[]>(await platform.call('GET', '/v1/admin/teams'), 200)
  return await json<AnyTeam>(await platform.call('PATCH', `/v1/admin/teams/${team?.id}/quota`, limits), status)
}
const none = {
  ...{ running_capsules: null, vcpus: null, memory_mb: null, pool_bytes: null },
  ...{ creating_capsules: null, api_calls_per_min: null },
}

describe('a plan', () => {
  it('has the limits that it was given last, and none of those before', async () => {
    const made = await json<Plan>(await put('small', { running_capsules: 2, vcpus: 4 }), 200)
    expect(made).toMatchObject({ name: 'small', teams: 0, quota: { ...none, running_capsules: 2, vcpus: 4 } })
    expect((await json<Plan>(await put('small', { vcpus: 3 }), 200)).quota).toEqual({ ...none, vcpus: 3 })
    await json(await put('big', {}), 200)
    expect((await plans()).map(({ name }) => name)).toEqual(['big', 'small'])
  })

  it('counts for its teams where they have no limit of their own', async () => {
    await json(await put('counts', { running_capsules: 1, memory_mb: 0 }), 200)
    expect(await change({ plan: 'counts' })).toMatchObject({ plan: 'counts', quota: none })
    expect(await quota()).toMatchObject({ plan: 'counts', running_capsules: { limit: 1 }, memory_mb: { limit: null } })
    const { id } = await platform.create()
    const refused = await json<ErrorBody>(await platform.call('POST', '/v1/capsules', {}), 429)
    expect(refused.error).toMatchObject({ code: 'pool_exhausted', details: { max: 1 } })
    await change({ running_capsules: 2 })
    expect((await quota()).running_capsules).toEqual({ used: 1, limit: 2 })
    await change({ running_capsules: null, plan: null })
    expect(await quota()).toMatchObject({ plan: null, running_capsules: { limit: 5 } })
    await platform.call('DELETE', `/v1/capsules/${id}`)
    await platform.until(id, 'stopped')
  })

  it('goes when no team has it, and not before', async () => {
    await json(await put('taken', {}), 200)
    await change({ plan: 'taken' })
    const refused = await json<ErrorBody>(await platform.call('DELETE', '/v1/admin/plans/taken'), 409)
    expect(refused.error.code).toBe('in_use')
    await change({ plan: null })
    expect((await platform.call('DELETE', '/v1/admin/plans/taken')).status).toBe(204)
    expect((await platform.call('DELETE', '/v1/admin/plans/taken')).status).toBe(404)
    await change({ plan: 'taken' }, 404)
  })

  it('is in the audit trail of the platform', async () => {
    await json(await put('told', { vcpus: 1 }), 200)
    await json(await put('told', { vcpus: 1 }), 200)
    await json(await put('told', { vcpus: 2 }), 200)
    await platform.call('DELETE', '/v1/admin/plans/told')
    const path = '/v1/admin/audit-logs?resource_type=plan&limit=3'
    const { items } = await json<AuditPage>(await platform.call('GET', path), 200)
    expect(items.map(({ action, details }) => [action, details?.max_vcpus])).toEqual([
      ['plan.delete', undefined],
      ['plan.update', '2'],
      ['plan.create', '1'],
    ])
  })

  it.each([
    ['a name that is none', 'Not%20One', {}],
    ['the word for no plan', 'none', {}],
    ['a negative limit', 'small', { vcpus: -1 }],
    ['a limit of something else', 'small', { disks: 1 }],
  ])('is refused with %s', async (_, name, limits) => {
    expect((await put(name, limits)).status).toBe(400)
  })
})

describe('a team', () => {
  it('creates no more capsules at a time than it may', async () => {
    await change({ creating_capsules: 1 })
    const { id } = await platform.create()
    const held = platform.host.holdNext('create')
    const slow = platform.call('POST', '/v1/capsules?wait_sec=0', {})
    await held.reached
    const refused = await platform.call('POST', '/v1/capsules', {})
    expect(refused.headers.get('retry-after')).toBe('1')
    expect((await json<ErrorBody>(refused, 429)).error).toMatchObject({
      code: 'limit_exceeded',
      details: { limit: 'creating', max: 1, used: 1 },
    })
    expect((await quota()).creating_capsules).toEqual({ used: 1, limit: 1 })
    held.release()
    const second = await json<{ id: string }>(await slow, 201)
    await platform.until(second.id, 'running')
    const fork = await json<ErrorBody>(await platform.call('POST', `/v1/capsules/${id}/fork`, { count: 2 }), 429)
    expect(fork.error).toMatchObject({ code: 'pool_exhausted', details: { limit: 'creating', max: 1, asked: 2 } })
    await change({ creating_capsules: null })
  })

  it('calls no more often than it may, and its admins can always raise the limit', async () => {
    const { api_calls_per_min: before } = await quota()
    expect(before).toMatchObject({ used: expect.any(Number), limit: null })
    await change({ api_calls_per_min: 1 })
    // Two calls, for there may be two control planes, which hear of it one after the other.
    let refused = new Response()
    const statuses = async (): Promise<number[]> => {
      const first = await platform.call('GET', '/v1/capsules')
      refused = await platform.call('GET', '/v1/capsules')
      return [first.status, refused.status]
    }
    await expect.poll(statuses, { timeout: 10_000 }).toEqual([429, 429])
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect((await json<ErrorBody>(refused, 429)).error).toMatchObject({ code: 'limit_exceeded', details: { max: 1 } })
    // Whoever uses the calls up can be found and ended all the same.
    expect((await platform.call('GET', '/v1/api-keys')).status).toBe(200)
    await change({ api_calls_per_min: null })
    await expect.poll(statuses, { timeout: 10_000 }).toEqual([200, 200])
  })
})
