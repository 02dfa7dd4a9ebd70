import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

const wireSums = {
  ...{ cpu_minutes: 1, ram_mb_minutes: 2, vcpu_seconds: 60 },
  ...{ memory_gib_seconds: 3, disk_gib_seconds: 4, net_rx_bytes: 5, net_tx_bytes: 6 },
}
const sums = {
  ...{ cpuMinutes: 1, ramMibMinutes: 2, vcpuSeconds: 60, memoryGibSeconds: 3, diskGibSeconds: 4 },
  ...{ netRxBytes: 5, netTxBytes: 6 },
}
const span = { from: '2026-11-01', to: '2026-11-30' }
let server: FakeServer
let wrenn: Wrenn

beforeEach(async () => {
  server = await new FakeServer().start()
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})
const paths = (): (string | undefined)[] => server.seen.map(({ path }) => path)

describe('usage', () => {
  it('is told by days or months', async () => {
    server.handler = (_seen, response) =>
      sendJson(response, { ...span, points: [{ date: '2026-11-01', ...wireSums }], total: wireSums })
    expect(await wrenn.usage.get({ ...span, period: 'month' })).toEqual({
      ...{ ...span, total: sums },
      points: [{ date: '2026-11-01', ...sums }],
    })
    await wrenn.usage.get()
    expect(paths()).toEqual(['/v1/capsules/usage?from=2026-11-01&to=2026-11-30&period=month', '/v1/capsules/usage'])
  })

  it('is told as a table', async () => {
    server.handler = (_seen, response) => response.setHeader('content-type', 'text/csv').end('date\r\n')
    expect(await wrenn.usage.csv({ from: '2026-11-01' })).toBe('date\r\n')
    expect(await wrenn.platform.usageCsv()).toBe('date\r\n')
    expect(paths()).toEqual(['/v1/capsules/usage?from=2026-11-01&format=csv', '/v1/admin/usage?format=csv'])
  })

  it('has stats, a step with its time', async () => {
    server.handler = (_seen, response) =>
      sendJson(response, {
        range: '5m',
        current: { running_count: 1, vcpus_reserved: 2, memory_mb_reserved: 3 },
        peaks: { running_count: 4, vcpus: 5, memory_mb: 6 },
        series: { labels: ['2026-01-02T03:04:05.000Z'], running: [7], vcpus: [8], memory_mb: [9] },
      })
    expect(await wrenn.usage.stats('5m')).toEqual({
      range: '5m',
      current: { running: 1, vcpus: 2, memoryMib: 3 },
      peaks: { running: 4, vcpus: 5, memoryMib: 6 },
      steps: [{ at: new Date('2026-01-02T03:04:05.000Z'), running: 7, vcpus: 8, memoryMib: 9 }],
    })
    expect(paths()).toEqual(['/v1/capsules/stats?range=5m'])
  })

  it('can be checked', async () => {
    const exact = {
      ...{ vcpu_seconds: '1', memory_mib_seconds: '2', paused_mib_seconds: '3', disk_mib_seconds: '4' },
      ...{ net_rx_bytes: '5', net_tx_bytes: '6' },
    }
    const where = { period: 'day', date: '2026-11-01', template: 'minimal' }
    server.handler = (_seen, response) =>
      sendJson(response, {
        ...{ days: 1, ok: false, strays: ['cl-1'] },
        differences: [{ ...where, team_id: 'team-1', expected: exact }],
      })
    const check = { from: undefined, to: undefined, days: 1, isOk: false, strays: ['cl-1'] }
    const expected = {
      ...{ vcpuSeconds: '1', memoryMibSeconds: '2', pausedMibSeconds: '3', diskMibSeconds: '4' },
      ...{ netRxBytes: '5', netTxBytes: '6' },
    }
    const differences = [{ ...where, teamId: 'team-1', rolledUp: undefined, expected }]
    expect(await wrenn.usage.verify(span)).toEqual({ ...check, differences })
    expect(await wrenn.platform.verifyUsage({ teamId: 'team-1' })).toEqual({ ...check, differences })
    expect(paths()).toEqual([
      '/v1/capsules/usage/verify?from=2026-11-01&to=2026-11-30',
      '/v1/admin/usage/verify?team_id=team-1',
    ])
  })

  it('of all teams is told to admins of the platform, and made anew for them', async () => {
    server.handler = (seen, response) =>
      sendJson(
        response,
        seen.method === 'POST'
          ? { ...span, days: 30 }
          : { ...span, teams: [{ team_id: 'team-1', ...wireSums }], total: wireSums },
      )
    expect(await wrenn.platform.usage(span)).toEqual({
      ...{ ...span, total: sums },
      teams: [{ teamId: 'team-1', teamName: undefined, ...sums }],
    })
    expect(await wrenn.platform.recomputeUsage(span.from, span.to)).toMatchObject({ days: 30 })
    expect(server.seen[1]).toMatchObject({ method: 'POST', path: '/v1/admin/usage/recompute' })
  })
})
