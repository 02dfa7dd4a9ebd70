import type { Capsule } from '@wrenn/protocol'
import { beforeAll, describe, expect, it } from 'vitest'
import { Api, useCapsule, usePlatform } from '../harness/api.js'
import { addTeamKey } from '../harness/api-key.js'
import { Stream } from '../harness/stream.js'

const { platform, api } = usePlatform()
const capsule = useCapsule()
let stranger: Api
let strangersKey: string

beforeAll(async () => {
  strangersKey = await addTeamKey(platform, 'strangers')
  stranger = new Api(platform, strangersKey)
})

describe('an API key', () => {
  it.each([
    ['no key', ''],
    ['a key that does not exist', `wrn_${'0'.repeat(32)}`],
    ['nonsense', 'nonsense'],
  ])('is needed: %s is refused with 401', async (_, key) => {
    const nobody = new Api(platform, key)
    const refused = { status: 401, code: 'unauthorized' }
    expect(await nobody.refusal('GET', '/v1/capsules')).toMatchObject(refused)
    expect(await nobody.refusal('POST', '/v1/capsules', { json: {} })).toMatchObject(refused)
    expect(await nobody.refusal('GET', capsule().path)).toMatchObject(refused)
    expect(await nobody.refusal('POST', `${capsule().path}/exec`, { json: { cmd: 'true' } })).toMatchObject(refused)
  })

  it('may come as a bearer token', async () => {
    const nobody = new Api(platform, '')
    const answer = await nobody.call('GET', capsule().path, { headers: { authorization: `Bearer ${platform.apiKey}` } })
    expect(answer.status).toBe(200)
  })
})

describe('another team', () => {
  it('cannot see, use or end a capsule that is not its own', async () => {
    const missing = { status: 404, code: 'capsule_not_found' }
    const { path } = capsule()
    expect(await stranger.list({ status: 'all' })).toEqual([])
    for (const [method, route, json] of [
      ['GET', path, undefined],
      ['DELETE', path, undefined],
      ['GET', `${path}/metrics`, undefined],
      ['GET', `${path}/processes`, undefined],
      ['GET', `${path}/files?path=/etc/passwd`, undefined],
      ['POST', `${path}/exec`, { cmd: 'true' }],
      ['POST', `${path}/ping`, undefined],
      ['POST', `${path}/files/read`, { path: '/etc/passwd' }],
      ['POST', `${path}/files/remove`, { path: '/etc/passwd' }],
      ['DELETE', `${path}/processes/1`, undefined],
    ] as const) {
      expect([route, await stranger.refusal(method, route, json ? { json } : {})]).toMatchObject([route, missing])
    }
    for (const route of ['exec/stream', 'pty', 'processes/1/stream']) {
      await using stream = await Stream.open(platform, `${path}/${route}`, { headers: stranger.headers })
      expect(await stream.next()).toMatchObject({ type: 'error', code: 'capsule_not_found', fatal: true })
    }
    expect((await capsule().get()).state).toBe('running')
    expect(await capsule().text('echo untouched')).toBe('untouched')
  })

  it('has capsules, names and idempotency keys of its own', async () => {
    const headers = { 'Idempotency-Key': `shared-${crypto.randomUUID()}` }
    const json = { name: 'same name' }
    const query = { wait_sec: '60' }
    const [ours, theirs] = await Promise.all(
      [api, stranger].map((who) => who.json<Capsule>('POST', '/v1/capsules', { headers, json, query })),
    )
    expect(ours?.id).not.toBe(theirs?.id)
    expect((await stranger.list()).map(({ id }) => id)).toEqual([theirs?.id])
    await api.json('DELETE', `/v1/capsules/${ours?.id}`)
    await stranger.json('DELETE', `/v1/capsules/${theirs?.id}`)
  })
})
