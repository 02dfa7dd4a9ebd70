import { describe, expect, it } from 'vitest'
import { AgentHarness, SECRET, TESTER } from '../testing/agent-harness.js'

const statusOf = async (response: Promise<Response>) => (await response).status

describe('POST /init', () => {
  it('claims a fresh agent with its first secret, and only with one', async () => {
    await using harness = await AgentHarness.start({ claimed: false })
    const without = { 'x-wrenn-secret': '' }
    expect(await statusOf(harness.init({ hostname: 'x' }, without))).toBe(400)
    expect(harness.system.hostname).toBeUndefined()
    expect(await statusOf(harness.init({ secret: SECRET }, without))).toBe(200)
    expect(await statusOf(harness.init({ secret: SECRET }, without))).toBe(401)
    expect(await statusOf(harness.init({ secret: 'another-secret-of-mine' }, { 'x-wrenn-secret': 'wrong' }))).toBe(401)
    expect(await statusOf(harness.init({}))).toBe(200)
  })

  it('rotates the secret at once', async () => {
    await using harness = await AgentHarness.start()
    const next = 'next-secret-0123456789'
    expect(await statusOf(harness.init({ secret: next }))).toBe(200)
    expect(await statusOf(harness.fetch('/metrics'))).toBe(401)
    expect(await statusOf(harness.init({}))).toBe(401)
    expect(await statusOf(harness.fetch('/metrics', { headers: { 'x-wrenn-secret': next } }))).toBe(200)
  })

  it('lets only one of two claims win', async () => {
    await using harness = await AgentHarness.start({ claimed: false })
    const claims = ['first-secret-0123456789', 'second-secret-0123456789'].map((secret) =>
      statusOf(harness.init({ secret }, { 'x-wrenn-secret': '' })),
    )
    expect((await Promise.all(claims)).sort()).toEqual([200, 401])
  })

  it('applies everything it is told, keeps what it is not told, and answers with version and clock error', async () => {
    await using harness = await AgentHarness.start()
    const response = await harness.init({
      capsuleId: 'cl-x',
      hostname: 'capsule-1',
      machineId: '0123456789abcdef0123456789abcdef',
      timestampNs: String(BigInt(Date.now()) * 1_000_000n),
      entropy: Buffer.alloc(64, 7).toString('base64'),
      envs: { A: '1', 'odd name': 'x=y', EMPTY: '' },
      defaultUser: TESTER.name,
      defaultCwd: '/tmp',
    })
    const answer = JSON.parse(await response.text())
    expect(answer.agentVersion).toMatch(/^\d+\.\d+\.\d+/)
    expect(Math.abs(answer.clockErrorMs)).toBeLessThan(60_000)
    expect(harness.system).toMatchObject({
      hostname: 'capsule-1',
      machineId: '0123456789abcdef0123456789abcdef',
      entropyBytes: 64,
    })
    await harness.init({ hostname: 'capsule-2', envs: null, defaultUser: null, accessToken: '' })
    expect(await (await harness.fetch('/envs')).json()).toEqual({ A: '1', 'odd name': 'x=y', EMPTY: '' })
    await harness.init({ envs: { B: '2' } })
    expect(await (await harness.fetch('/envs')).json()).toEqual({ B: '2' })
  })

  it('refuses what it cannot understand with 400 and changes nothing', async () => {
    await using harness = await AgentHarness.start()
    for (const body of [
      { secret: 'short' },
      { secret: 'with spaces in the secret' },
      { secret: 5 },
      { hostname: 'bad name' },
      { hostname: '-' },
      { machineId: 'xyz' },
      { timestampNs: 12 },
      { timestampNs: '1e9' },
      { entropy: '%%%' },
      { envs: { 'A=B': 'x' } },
      { envs: { A: 1 } },
      { envs: 'A=1' },
      { envs: ['A'] },
      { envs: { A: 'nul\0' } },
      { defaultUser: 'zork' },
      { defaultUser: 'a b' },
      { defaultCwd: 'nul\0' },
      { accessToken: 'zeile\n' },
    ]) {
      const response = await harness.init({ ...body, machineId: 'f'.repeat(32), ...body })
      expect([body, response.status]).toEqual([body, 400])
      const text = await response.text()
      expect(text).not.toContain('short')
    }
    expect(harness.system.machineId).toBeUndefined()
    for (const raw of ['not json', '[]', '1', 'null', '"x"', '{']) {
      const response = await harness.fetch('/init', { method: 'POST', body: raw })
      expect([raw, response.status]).toEqual([raw, 400])
    }
    const huge = await harness.fetch('/init', { method: 'POST', body: 'x'.repeat(5 * 1024 * 1024) })
    expect(huge.status).toBe(413)
    expect(await statusOf(harness.init({}))).toBe(200)
  })

  it('keeps the new secret although the machine refuses its name', async () => {
    await using harness = await AgentHarness.start()
    harness.system.setHostname = () => {
      throw Object.assign(new Error('EROFS: read-only file system'), { code: 'EROFS' })
    }
    const next = 'next-secret-0123456789'
    const response = await harness.init({ secret: next, hostname: 'x', timestampNs: '1' })
    expect(response.status).toBe(200)
    expect(JSON.parse(await response.text()).problems).toEqual(['hostname: EROFS: read-only file system'])
    expect(await statusOf(harness.init({}, { 'x-wrenn-secret': next }))).toBe(200)
  })
})

describe('GET /metrics', () => {
  it('has the numbers existing clients read', async () => {
    await using harness = await AgentHarness.start()
    const metrics = JSON.parse(await (await harness.fetch('/metrics')).text())
    for (const name of ['ts', 'cpu_count', 'mem_total', 'mem_used', 'mem_cache', 'disk_used', 'disk_total'])
      expect([name, metrics[name] > 0]).toEqual([name, true])
    expect(metrics.cpu_used_pct).toBeGreaterThanOrEqual(0)
    expect(metrics.cpu_used_pct).toBeLessThanOrEqual(100)
    expect(metrics.mem_used).toBeLessThan(metrics.mem_total)
    expect(metrics.disk_used).toBeLessThanOrEqual(metrics.disk_total)
    expect(metrics.mem_total_mib).toBe(Math.round(metrics.mem_total / 1024 / 1024))
  })
})
