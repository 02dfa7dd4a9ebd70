import type { NewApiKey, PlatformHealth } from '@wrenn/protocol'
import { LagoServer } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

const KEY = 'lago-secret-key'
let lago: LagoServer
let platform: Platform

beforeAll(async () => {
  lago = await LagoServer.start({ apiKey: KEY, codes: ['wrenn_vcpu_seconds'] })
  const env = { WRENN_LAGO_URL: `${lago.origin}/`, WRENN_LAGO_API_KEY: KEY, WRENN_LAGO_FROM: '2026-01-01' }
  platform = await startPlatform({ env })
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
  await lago[Symbol.asyncDispose]()
})

const health = async (): Promise<PlatformHealth> =>
  await json<PlatformHealth>(await platform.call('GET', '/v1/admin/health'), 200)
const put = async (date: string, vcpuSeconds: number): Promise<void> => {
  const db = openDatabase({ url: platform.databaseUrl })
  try {
    await db.transaction().execute(async (tx) => {
      await sql`INSERT INTO usage_rollups VALUES ('team-a', 'day', ${date}, 'minimal', ${vcpuSeconds}, 0, 0, 0)`.execute(
        tx,
      )
      await sql`INSERT INTO usage_changed_days VALUES (${date})`.execute(tx)
    })
  } finally {
    await db.destroy()
  }
}

it('tells Lago what teams used, and admins what it does not have yet', async () => {
  const to = new URL(lago.origin).host
  expect((await health()).lago).toEqual({ to, waiting: 0, refused: 0 })
  await put('2026-01-01', 1.5)
  await expect.poll(() => lago.rules.total('team-a', 'wrenn_vcpu_seconds')).toBe(1_500_000n)
  await expect.poll(async () => (await health()).lago).toEqual({ to, waiting: 0, refused: 0 })

  lago.rules.expression = () => `no, ${KEY}`
  await put('2026-01-02', 2)
  await expect.poll(async () => (await health()).lago?.refused).toBe(1)
  const { problems, lago: state } = await health()
  expect(state).toMatchObject({ to, waiting: 1, refused: 1, problem: 'Lago refuses it: no, ***' })
  expect(problems).toContainEqual(expect.objectContaining({ part: 'lago', severity: 'warning' }))
  const made = await platform.call('POST', '/v1/api-keys', { scopes: ['monitor'] })
  const { key } = await json<NewApiKey>(made, 201)
  const metrics = await (await platform.call('GET', '/metrics', undefined, { 'x-api-key': key })).text()
  expect(metrics).toMatch(/^wrenn_lago_events_waiting 1$/m)
  expect(metrics).toMatch(/^wrenn_lago_events_refused 1$/m)
  expect(metrics).toMatch(/^wrenn_lago_lag_seconds \d/m)
})
