import type { CapsuleMetrics, ErrorBody } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform

beforeAll(async () => {
  platform = await startPlatform()
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

const metrics = async (id: string, query = '', of = platform): Promise<CapsuleMetrics> =>
  await json<CapsuleMetrics>(await of.call('GET', `/v1/capsules/${id}/metrics${query}`), 200)
/** The host has looked at a capsule in the last minute, which is over for its collectors. */
function used(id: string, { host } = platform): number {
  const end = Math.floor(Date.now() / 15_000) * 15
  const looks = Array.from({ length: 12 }, (_, index) => ({
    ...{ atSec: BigInt(end - 60 + index * 5), cpuPct: index, memBytes: 2n ** 20n, diskBytes: 4096n },
    ...(index < 6 ? {} : { netRxBytes: 7n, netTxBytes: 0n }),
  }))
  host.used.set(id, looks)
  host.usedUntilSec = end
  return end
}

describe('what a capsule has used', () => {
  it('is told with what it uses now, as it was looked at', async () => {
    const { id } = await platform.create()
    const end = used(id)
    const { current, points, ...rest } = await metrics(id)
    expect(rest).toEqual({ sandbox_id: id, capsule_id: id, range: '10m', step_sec: 5 })
    expect(current).toMatchObject({ cpu_count: 1 })
    expect(points).toHaveLength(12)
    expect(points[0]).toEqual({ timestamp_unix: end - 60, cpu_pct: 0, mem_bytes: 2 ** 20, disk_bytes: 4096 })
    expect(points[11]).toMatchObject({ timestamp_unix: end - 5, cpu_pct: 11, net_rx_bytes: 7, net_tx_bytes: 0 })
  })

  it('is told in longer steps of longer times, with the peak of each', async () => {
    const { id } = await platform.create()
    used(id)
    const hour = await metrics(id, '?range=1h')
    expect(hour.step_sec).toBe(30)
    expect(Math.max(...hour.points.map(({ cpu_max_pct = 0 }) => cpu_max_pct))).toBe(11)
    const sum = (points: CapsuleMetrics['points']) =>
      points.reduce((all, { net_rx_bytes = 0 }) => all + net_rx_bytes, 0)
    expect(sum(hour.points)).toBe(42)
    const day = await metrics(id, '?range=24h')
    expect([day.step_sec, sum(day.points)]).toEqual([300, 42])
  })

  it('is kept while the capsule sleeps and when it has ended, and beyond a restart; only what it uses now is missing', async () => {
    await using own = await startPlatform()
    const { id } = await own.create()
    used(id, own)
    await own.call('POST', `/v1/capsules/${id}/pause`)
    const kept = async () => (await metrics(id, '?range=5m', own)).points.length
    // The host tells its last two minutes also where they were not collected yet.
    await using db = openDatabase({ url: own.databaseUrl })
    await expect.poll(async () => (await db.selectFrom('capsule_metrics').select('at').execute()).length).not.toBe(0)
    own.host.used.clear()
    expect(await kept()).toBe(12)
    expect((await metrics(id, '?range=5m', own)).current).toBeUndefined()
    await own.restart()
    expect(await kept()).toBe(12)
    await own.call('DELETE', `/v1/capsules/${id}`)
    expect(await kept()).toBe(12)
  })

  it('without a range is refused unless the capsule runs, as ever', async () => {
    const { id } = await platform.create()
    await platform.call('POST', `/v1/capsules/${id}/pause`)
    const refused = await platform.call('GET', `/v1/capsules/${id}/metrics`)
    expect((await json<ErrorBody>(refused, 409)).error.code).toBe('invalid_state')
  })

  it('is told of a guest that does not answer, and without asking any', async () => {
    const { id } = await platform.create()
    used(id)
    const quiet = await metrics(id, '?range=10m&current=false')
    expect([quiet.current, quiet.points.length]).toEqual([undefined, 12])
    platform.host.unreachable.add(id)
    const hung = await metrics(id, '?range=10m')
    expect([hung.current, hung.points.length]).toEqual([undefined, 12])
  })

  it('is a point of now for a capsule that nobody has looked at yet', async () => {
    const { id } = await platform.create()
    expect((await metrics(id, '?range=24h')).points).toEqual([expect.objectContaining({ disk_bytes: 4096 })])
    expect((await metrics(id, '?range=24h&current=false')).points).toEqual([])
  })

  it('refuses ranges that there are not, by name', async () => {
    const { id } = await platform.create()
    for (const query of ['?range=7m', '?range=', '?current=perhaps']) {
      const refused = await platform.call('GET', `/v1/capsules/${id}/metrics${query}`)
      expect((await json<ErrorBody>(refused, 400)).error.code, query).toBe('invalid_request')
    }
    const unknown = await platform.call('GET', `/v1/capsules/cl-${'0'.repeat(25)}/metrics?range=1h`)
    expect((await json<ErrorBody>(unknown, 404)).error.code).toBe('capsule_not_found')
  })
})
