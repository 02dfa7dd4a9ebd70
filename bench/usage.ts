// node --conditions=wrenn-source --import tsx bench/usage.ts [--capsules 10000] [--days 30] [--changes 25] [--seed 1]
// The ledger of usage against the exact integral: capsules that live through some days with killed transactions, a clock that is set to and fro and
// many midnights, rolled up day by day. Says what a roll-up, a check and the questions of clients take, and what a change costs.
import { parseArgs } from 'node:util'
import { silentLogger } from '@wrenn/base'
import { startTestPostgres } from '@wrenn/testkit'
import { Client } from 'pg'
import { UsageRollUp } from '../apps/control-plane/src/domain/usage/roll-up.js'
import { Usage } from '../apps/control-plane/src/domain/usage/usage.js'
import { migrateUp, openDatabase } from '../apps/control-plane/src/store/database.js'
import { createTeam } from '../apps/control-plane/src/store/teams.js'
import { UsageWorld } from '../apps/control-plane/src/testing/usage-world.js'
import { seededRandom } from './random.js'
import { median, percentile, round, timed } from './stats.js'

const TEAMS = 100
const COST_ROWS = 2_000
const { values } = parseArgs({
  options: {
    capsules: { type: 'string', default: '10000' },
    days: { type: 'string', default: '30' },
    changes: { type: 'string', default: '25' },
    seed: { type: 'string', default: '1' },
  },
})
const [capsules, days, changes, seed] = [values.capsules, values.days, values.changes, values.seed].map(Number) as [
  number,
  number,
  number,
  number,
] // four went in

/** A change of each of many capsules in one statement, with the ledger's trigger and without. */
async function changeCost(plain: Client): Promise<void> {
  const change = (state: string) =>
    timed(() =>
      plain.query(
        `UPDATE capsules SET state = $1 WHERE id IN (SELECT id FROM capsules ORDER BY seq LIMIT ${COST_ROWS})`,
        [state],
      ),
    )
  await change('running')
  const withLedger = await change('paused')
  await plain.query('ALTER TABLE capsules DISABLE TRIGGER usage_update')
  const without = await change('running')
  await plain.query('ALTER TABLE capsules ENABLE TRIGGER usage_update')
  const [perMs, withoutMs] = [withLedger.ms / COST_ROWS, without.ms / COST_ROWS]
  console.log(`a change: ${round(perMs, 3)} ms with the ledger, ${round(withoutMs, 3)} ms without`)
}

await using postgres = await startTestPostgres()
const db = openDatabase({ url: postgres.url, statementTimeoutMs: 120_000 })
await migrateUp(db)
const plain = new Client({ connectionString: postgres.url })
await plain.connect()
const teamIds = await Promise.all(Array.from({ length: TEAMS }, (_, index) => createTeam(db, `Team ${index}`)))
const rollUpMs: number[] = []
/** Of the round around it, which first waits for the transactions that may not know that the day is over. */
const roundMs: number[] = []
const noting = {
  ...silentLogger,
  info: (facts: object) => {
    if ('ms' in facts && typeof facts.ms === 'number') rollUpMs.push(facts.ms)
  },
}
const usage = new Usage(db)
const roll = async (): Promise<void> => {
  const rolling = new UsageRollUp({ db, logger: noting, ledgerDays: 0, rollUpDays: 0 })
  roundMs.push((await timed(() => rolling.roll())).ms)
}
const world = new UsageWorld({
  ...{ db, random: seededRandom(seed), teamIds, capsules, days, changes, hasClockSteps: true },
  onDay: roll,
})
await world.prepare()
const { ms: livedMs } = await timed(() => world.run())
const { rows: counted } = await plain.query<{ count: string }>('SELECT count(*) AS count FROM usage_ledger')
console.log(
  `${world.capsules.length} capsules of ${TEAMS} teams, ${days} days: ${counted[0]?.count} entries in ${round(livedMs / 1000)} s`,
)
const told = (ms: readonly number[]): string => `p50 ${round(median(ms))}, most ${round(Math.max(...ms))} ms`
console.log(`roll-up of a day as it ends: ${told(rollUpMs)}; its round with all waits: ${told(roundMs)}`)

const { rows: state } = await plain.query<{ until: string }>('SELECT rolled_until::text AS until FROM usage_state')
const until = state[0]?.until ?? ''
const exact = new Map([...world.integral()].filter(([key]) => (key.split(' ')[1] ?? '') < until))
const { rows } = await plain.query<{ key: string; sums: string[] }>(
  `SELECT team_id || ' ' || date || ' ' || template AS key, ARRAY[vcpu_seconds * 1000, memory_mib_seconds * 1000,
    paused_mib_seconds * 1000, disk_mib_seconds * 1000]::numeric(40, 0)[]::text[] AS sums FROM usage_rollups WHERE period = 'day'`,
)
const wrong = rows.filter(({ key, sums }) => exact.get(key)?.map(String).join() !== sums.join())
console.log(
  `${rows.length} sums of ${exact.size} by the integral, before ${until}: ${wrong.length} differ by a millisecond or more`,
)
if (wrong.length > 0 || rows.length !== exact.size) process.exitCode = 1
const total = [...exact.values()].reduce((sum, [vcpus]) => sum + vcpus, 0n)
console.log(`${Number(total) / 1000} vCPU seconds in all`)

const last = new Date(Date.parse(until) - 24 * 3600_000).toISOString().slice(0, 10)
const actor = { id: 'key-1', name: 'bench', requestId: 'bench', ip: '' }
await plain.query('ANALYZE')
for (const day of ['2026-01-30', '2026-02-14', last]) {
  const { ms } = await timed(() => usage.recompute({ from: day, to: day }, actor))
  console.log(`roll-up of ${day} anew: ${round(ms)} ms`)
}
const check = await timed(() => usage.verify({ from: '2026-01-30', to: last }, undefined))
console.log(`a check of ${check.value.days} days: ${check.value.ok ? 'ok' : 'WRONG'}, ${round(check.ms / 1000, 2)} s`)
if (!check.value.ok) process.exitCode = 1
const questions: Readonly<Record<string, (team: string) => Promise<object>>> = {
  'usage of 30 days': (team) => usage.of(team, {}, 'day'),
  'stats of 30 days': (team) => usage.stats(team, '30d'),
  'stats of 1 hour': (team) => usage.stats(team, '1h'),
}
for (const [name, ask] of Object.entries(questions)) {
  const samples: number[] = []
  for (const team of teamIds) samples.push((await timed(() => ask(team))).ms)
  console.log(`${name}: p50 ${round(median(samples))}, p99 ${round(percentile(samples, 99))} ms`)
}
const { rows: size } = await plain.query<{ mib: number }>(
  "SELECT (pg_total_relation_size('usage_ledger') / 1048576)::int AS mib",
)
console.log(`the ledger has ${size[0]?.mib} MiB with its indexes`)
await changeCost(plain)
await plain.end()
await db.destroy()
