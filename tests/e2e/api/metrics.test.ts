import type { CapsuleMetrics } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'

const { api } = usePlatform()
const capsule = useCapsule()

describe('metrics', () => {
  it('tell what the guest uses now and what it costs its host', async () => {
    const before = await api.json<CapsuleMetrics>('GET', `${capsule().path}/metrics`)
    expect(before.current).toMatchObject({ cpu_count: 1 })
    expect(before.current.mem_total_bytes).toBeGreaterThan(400 * 2 ** 20)
    expect(before.current.mem_used_bytes).toBeLessThan(before.current.mem_total_bytes)
    expect(before.current.host_rss_bytes).toBeGreaterThan(0)
    expect(Math.abs(Date.parse(before.current.timestamp) - Date.now())).toBeLessThan(60_000)
    await capsule().text('head -c 100M /dev/zero > /dev/shm/held; head -c 50M /dev/urandom > /root/kept; sync', {
      timeout_sec: 120,
    })
    const after = await api.json<CapsuleMetrics>('GET', `${capsule().path}/metrics`)
    expect(after.current.mem_used_bytes - before.current.mem_used_bytes).toBeGreaterThan(80 * 2 ** 20)
    expect(after.current.disk_used_bytes - before.current.disk_used_bytes).toBeGreaterThan(45 * 2 ** 20)
    expect(after.current.host_cpu_ns).toBeGreaterThan(before.current.host_cpu_ns)
    expect(after.points).toHaveLength(1)
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
