import type { CapsuleMetrics, CapsuleUsage } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'

const { api } = usePlatform()
const capsule = useCapsule()

describe('metrics', () => {
  it('tell what the guest uses now and what it costs its host', async () => {
    const now = async () => {
      const { current } = await api.json<CapsuleMetrics>('GET', `${capsule().path}/metrics`)
      if (current === undefined) throw new Error('a running capsule without what it uses now')
      return current
    }
    const before = await now()
    expect(before).toMatchObject({ cpu_count: 1 })
    expect(before.mem_total_bytes).toBeGreaterThan(400 * 2 ** 20)
    expect(before.mem_used_bytes).toBeLessThan(before.mem_total_bytes)
    expect(before.host_rss_bytes).toBeGreaterThan(0)
    expect(Math.abs(Date.parse(before.timestamp) - Date.now())).toBeLessThan(60_000)
    await capsule().text('head -c 100M /dev/zero > /dev/shm/held; head -c 50M /dev/urandom > /root/kept; sync', {
      timeout_sec: 120,
    })
    const after = await now()
    expect(after.mem_used_bytes - before.mem_used_bytes).toBeGreaterThan(80 * 2 ** 20)
    expect(after.disk_used_bytes - before.disk_used_bytes).toBeGreaterThan(45 * 2 ** 20)
    expect(after.host_cpu_ns).toBeGreaterThan(before.host_cpu_ns)
  })

  it('are kept while the capsule runs and while it sleeps, which is a gap', async () => {
    const history = async (query = 'range=5m') =>
      await api.json<CapsuleMetrics>('GET', `${capsule().path}/metrics?${query}`)
    const pointsAfter = async (seconds: number, count: number) => {
      const recent = async () => (await history()).points.filter(({ timestamp_unix }) => timestamp_unix > seconds)
      await expect.poll(async () => (await recent()).length, { timeout: 120_000 }).toBeGreaterThanOrEqual(count)
      return await recent()
    }
    const awake = await pointsAfter(0, 3)
    expect(awake.every(({ cpu_pct }) => cpu_pct >= 0 && cpu_pct <= 100)).toBe(true)
    expect(Math.min(...awake.map(({ mem_bytes }) => mem_bytes))).toBeGreaterThan(10 * 2 ** 20)
    expect(Math.min(...awake.map(({ disk_bytes }) => disk_bytes))).toBeGreaterThan(2 ** 20)
    // Each look asks the guest for what it uses now, so its network is in use.
    const sent = async () => Math.max(...(await history()).points.map(({ net_tx_bytes = 0 }) => net_tx_bytes))
    await expect.poll(sent, { timeout: 120_000 }).toBeGreaterThan(0)
    await api.json('POST', `${capsule().path}/pause`)
    const asleep = await history()
    expect(asleep.current).toBeUndefined()
    const times = asleep.points.map(({ timestamp_unix }) => timestamp_unix)
    expect(times).toContain(awake.at(-1)?.timestamp_unix)
    const last = Math.max(...times)
    await api.json('POST', `${capsule().path}/resume`)
    const later = await pointsAfter(last, 2)
    // The first look at a new guest makes no point, so that the sleep itself is in none.
    expect((later[0]?.timestamp_unix ?? 0) - last).toBeGreaterThanOrEqual(10)
    expect((await history('range=24h&current=false')).step_sec).toBe(300)
  })
})

describe('usage', () => {
  it('has what a capsule received and sent, each byte once, over a pause and its end', async () => {
    const used = async () => (await api.json<CapsuleUsage>('GET', '/v1/capsules/usage')).total
    const half = Buffer.alloc(4 * 2 ** 20, 'x')
    const before = await used()
    {
      await using own = await api.create({ timeout_sec: 600 })
      await own.write('/root/first', half)
      await own.pause()
      await own.resume()
      await own.write('/root/second', half)
      expect((await own.read('/root/second')).bytes).toHaveLength(half.length)
    }
    const grown = async () => {
      const { net_rx_bytes: rx, net_tx_bytes: tx } = await used()
      return { rx: rx - before.net_rx_bytes, tx: tx - before.net_tx_bytes }
    }
    await expect.poll(async () => (await grown()).rx, { timeout: 120_000 }).toBeGreaterThan(2 * half.length)
    await expect.poll(async () => (await grown()).tx, { timeout: 120_000 }).toBeGreaterThan(half.length)
    // Beside the bytes of files there are packets' headers, and what the other capsule here says.
    const { rx, tx } = await grown()
    expect([rx < 3 * half.length, tx < 2 * half.length]).toEqual([true, true])
  })
})

describe('the service itself', () => {
  it('says that it is alive and ready, and describes its API, to anybody', async () => {
    for (const path of ['/health', '/ready', '/openapi.json', '/docs']) {
      const response = await fetch(new URL(path, usePlatform().platform.url))
      expect([path, response.status]).toEqual([path, 200])
    }
  })
})
