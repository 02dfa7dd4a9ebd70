import type { Quota } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { untilReady } from '../harness/kill.js'
import { up, wrenn } from '../harness/platform.js'

const { platform, api } = usePlatform()
const LIMITS = { WRENN_QUOTA_RUNNING_CAPSULES: '2', WRENN_QUOTA_VCPUS: '3', WRENN_QUOTA_POOL_BYTES: String(2 ** 40) }

async function restart(env: Readonly<Record<string, string>>): Promise<void> {
  expect((await wrenn(platform, ['down'])).code).toBe(0)
  await up({ ...platform, env: { ...platform.env, ...env } })
  await untilReady(platform)
}

beforeAll(async () => {
  await restart(LIMITS)
})
afterAll(async () => {
  await restart({})
})

describe('a team with quotas', () => {
  it('is told which limit is reached and what would free it, and nothing is half made', async () => {
    await using first = await api.create()
    const usage = (await api.json<Quota>('GET', '/v1/quota')).running_capsules
    expect(usage).toEqual({ used: 1, limit: 2 })
    const exhausted = { status: 429, code: 'pool_exhausted', message: expect.stringMatching(/running.*2.*[Pp]ause/s) }
    expect(await api.refusal('POST', `${first.path}/fork`, { json: { count: 2 } })).toMatchObject(exhausted)
    expect((await api.list()).map(({ id }) => id)).toEqual([first.id])
    await using second = await api.create()
    expect(await api.refusal('POST', '/v1/capsules', { json: {} })).toMatchObject(exhausted)
    await first.pause()
    const { copies } = await second.fork()
    expect(await api.refusal('POST', `${first.path}/resume`)).toMatchObject(exhausted)
    expect((await first.get()).state).toBe('paused')
    await Promise.all(copies.map((copy) => copy.destroy()))
    await first.resume()
    expect(await first.text('echo works')).toBe('works')
    const cli = await wrenn(platform, ['quota'])
    expect(cli.stdout).toMatch(/running capsules +2 +2 +100 %/)
  })
})
