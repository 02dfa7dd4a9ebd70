import type { Capsule } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'

const { api } = usePlatform()
const mark = crypto.randomUUID()
let first: TestCapsule
let second: TestCapsule

beforeAll(async () => {
  first = await api.create({ name: `first ${mark}`, labels: { mark, role: 'a' } })
  second = await api.create({ name: `second ${mark}`, labels: { mark, role: 'b' } })
})
afterAll(async () => {
  await Promise.all([first.destroy(), second.destroy()])
})

const ids = (capsules: readonly Capsule[]): string[] => capsules.map(({ id }) => id)

describe('listing capsules', () => {
  it('comes newest first and filters by label, name, template and status', async () => {
    expect(ids(await api.list({ label: `mark=${mark}` }))).toEqual([second.id, first.id])
    const both = new URLSearchParams([
      ['label', `mark=${mark}`],
      ['label', 'role=a'],
    ])
    expect(ids(await api.json<Capsule[]>('GET', `/v1/capsules?${both}`))).toEqual([first.id])
    expect(ids(await api.list({ name: `second ${mark}` }))).toEqual([second.id])
    expect(ids(await api.list({ label: `mark=${mark}`, status: 'running,paused' }))).toEqual([second.id, first.id])
    expect(await api.list({ label: `mark=${mark}`, status: 'stopped' })).toEqual([])
    expect(await api.list({ label: `mark=${mark}`, template: 'other' })).toEqual([])
  })

  it('goes page by page with the cursor of x-next-token, which the last page does not have', async () => {
    const query = { label: `mark=${mark}`, limit: '1' }
    const one = await api.call('GET', '/v1/capsules', { query })
    expect(ids(one.json())).toEqual([second.id])
    const cursor = one.headers.get('x-next-token') ?? ''
    const two = await api.call('GET', '/v1/capsules', { query: { ...query, cursor } })
    expect(ids(two.json())).toEqual([first.id])
    expect(two.headers.get('x-next-token')).toBeNull()
  })

  it.each([
    ['limit', { limit: '0' }],
    ['status', { status: 'sleeping' }],
    ['label', { label: 'without-value' }],
    ['cursor', { cursor: 'not-a-cursor' }],
  ])('refuses a %s that it cannot read', async (field, query) => {
    expect(await api.refusal('GET', '/v1/capsules', { query })).toMatchObject({
      status: 400,
      code: 'invalid_request',
      message: expect.stringContaining(field),
    })
  })
})

describe('destroying a capsule', () => {
  it('keeps its record, leaves the default list, and may be repeated', async () => {
    const capsule = await api.create({ labels: { mark: `gone-${mark}` } })
    await capsule.destroy()
    await capsule.destroy()
    expect(await capsule.get()).toMatchObject({ id: capsule.id, status: 'stopped', state: 'stopped' })
    expect(await api.list({ label: `mark=gone-${mark}` })).toEqual([])
    expect(ids(await api.list({ label: `mark=gone-${mark}`, status: 'all' }))).toEqual([capsule.id])
    expect(await api.refusal('POST', `${capsule.path}/exec`, { json: { cmd: 'true' } })).toMatchObject({
      status: 409,
      code: 'invalid_state',
    })
  })

  it('answers 404 for a capsule that never was', async () => {
    const path = `/v1/capsules/cl-${'0'.repeat(25)}`
    const missing = { status: 404, code: 'capsule_not_found' }
    expect(await api.refusal('GET', path)).toMatchObject(missing)
    expect(await api.refusal('DELETE', path)).toMatchObject(missing)
    expect(await api.refusal('POST', `${path}/exec`, { json: { cmd: 'true' } })).toMatchObject(missing)
  })
})
