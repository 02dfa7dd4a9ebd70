// node --conditions=wrenn-source --import tsx bench/load-metrics.ts [--capsules 1000] [--minutes 20]
// What the history of metrics costs: looking at fifty guests, the database with a day of a thousand capsules, and reading it. The day is written as
// the collector leaves it; then it collects for some minutes of the host's time, which is what leaves dead rows behind. As root.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { capsuleIds, identify, silentLogger } from '@wrenn/base'
import { FakeHost, startTestPostgres } from '@wrenn/testkit'
import { Client } from 'pg'
import { MetricsCollector } from '../apps/control-plane/src/domain/metrics/collector.js'
import { CapsuleHistory } from '../apps/control-plane/src/domain/metrics/history.js'
import { tiers } from '../apps/control-plane/src/domain/metrics/tiers.js'
import { Host } from '../apps/control-plane/src/host/host.js'
import { createHostClient } from '../apps/control-plane/src/host/transport.js'
import { type Db, migrateUp, openDatabase } from '../apps/control-plane/src/store/database.js'
import { type MetricPoint, packPoints } from '../apps/control-plane/src/store/metric-points.js'
import { insertMetrics } from '../apps/control-plane/src/store/metrics.js'
import { createTeam } from '../apps/control-plane/src/store/teams.js'
import { UsageReader } from '../apps/host-agent/src/host/usage/index.js'
import { median, percentile, round, timed } from './stats.js'

const GUESTS = 50
const LOOKS = 200
/** The host agent's. */
const STEP_MS = 5_000
const READS = 1_000
const MIB = 2 ** 20
const { values } = parseArgs({
  options: { capsules: { type: 'string', default: '1000' }, minutes: { type: 'string', default: '20' } },
})
const capsules = Number(values.capsules)
const minutes = Number(values.minutes)

/** A process in a network namespace of its own with a tap, as an engine's. */
async function startGuest(): Promise<ChildProcess> {
  const script = 'ip tuntap add dev tap0 mode tap && echo up && exec sleep 600'
  const child = spawn('unshare', ['--net', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

async function lookCost(): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-load-metrics-'))
  const disk = join(dir, 'disk')
  await writeFile(disk, 'some')
  const children = await Promise.all(Array.from({ length: GUESTS }, startGuest))
  try {
    const guests = await Promise.all(
      children.map(async ({ pid = 0 }) => ({ pid, pidStartTicks: (await identify(pid))?.startTicks ?? '' })),
    )
    const reader = new UsageReader()
    const look = (): number => guests.filter((guest) => reader.read(guest, disk)?.net !== undefined).length
    for (let warm = 0; warm < 20; warm++) if (look() !== GUESTS) throw new Error('a guest could not be measured')
    const before = process.cpuUsage()
    for (let times = 0; times < LOOKS; times++) look()
    const { user, system } = process.cpuUsage(before)
    const perRoundMs = (user + system) / 1000 / LOOKS
    console.log(
      `look at ${GUESTS} guests: ${round(perRoundMs, 2)} ms of CPU, ${round(perRoundMs / GUESTS, 4)} ms each, ` +
        `${round((perRoundMs / STEP_MS) * 100, 3)} % of a CPU`,
    )
  } finally {
    for (const child of children) child.kill()
    await rm(dir, { recursive: true, force: true })
  }
}

function pointAt(atSec: number, samples: number): MetricPoint {
  const some = Math.random()
  return {
    ...{ atSec, samples, cpuPct: some * 100, cpuMaxPct: 100, memBytes: Math.floor(some * 2 ** 32), diskBytes: 2 ** 30 },
    ...{ netRxBytes: Math.floor(some * 2 ** 24), netTxBytes: Math.floor(some * 2 ** 20) },
  }
}

/** What is kept at a time, oldest first, as if the collector had run for a day. */
async function writeDay(db: Db, ids: readonly string[], untilSec: number): Promise<void> {
  for (const [tier, { stepSec, spanSec, keepSec }] of tiers.entries()) {
    const end = untilSec - (untilSec % spanSec)
    for (let atSec = end - keepSec - spanSec; atSec < end; atSec += spanSec) {
      const times = Array.from({ length: spanSec / stepSec }, (_, index) => atSec + index * stepSec)
      const rows = ids.map((capsuleId) => ({
        ...{ capsuleId, atSec },
        points: packPoints(
          { atSec, stepSec },
          times.map((time) => pointAt(time, stepSec / 5)),
        ),
      }))
      await insertMetrics(db, { tier, hostId: undefined }, rows)
    }
  }
}

async function size(plain: Client): Promise<string> {
  const { rows } = await plain.query<{ bytes: string; rows: string }>(
    "SELECT pg_total_relation_size('capsule_metrics') AS bytes, (SELECT count(*) FROM capsule_metrics) AS rows",
  )
  return `${round(Number(rows[0]?.bytes) / MIB)} MiB with indexes, ${rows[0]?.rows} rows`
}

await lookCost()
await using postgres = await startTestPostgres()
const db = openDatabase({ url: postgres.url })
await migrateUp(db)
const plain = new Client({ connectionString: postgres.url })
await plain.connect()
await using fake = await FakeHost.start()
const link = createHostClient(fake.address)
const host = new Host(link.client, fake.address)
const teamId = await createTeam(db, 'Load')
const ids = Array.from({ length: capsules }, () => capsuleIds.create())
for (const id of ids) {
  await db
    .insertInto('capsules')
    .values({
      ...{ id, team_id: teamId, template: 'minimal', vcpus: 1, memory_mib: 512, disk_size_mib: 1024, timeout_sec: 0 },
      ...{ labels: '{}', envs: '{}', default_user: '', default_cwd: '', state: 'running', desired_state: 'running' },
    })
    .execute()
}
const nowSec = Math.floor(Date.now() / 15_000) * 15
const beginSec = nowSec - minutes * 60
await writeDay(db, ids, beginSec)
console.log(`a day of ${capsules} capsules: ${await size(plain)}`)

const collector = new MetricsCollector({ db, host, logger: silentLogger })
const rounds: number[] = []
for (let untilSec = beginSec + 15; untilSec <= nowSec; untilSec += 15) {
  const looks = [15, 10, 5].map((ago) => ({
    ...{ atSec: BigInt(untilSec - ago), cpuPct: 12.5, memBytes: 2n ** 30n, diskBytes: 2n ** 30n },
    ...{ netRxBytes: 1_000n, netTxBytes: 1_000n },
  }))
  for (const id of ids) fake.used.set(id, looks)
  fake.usedUntilSec = untilSec
  rounds.push((await timed(() => collector.collect())).ms)
  // What takes two minutes takes a second here: the server's own vacuum, which looks once a minute, would not come to it.
  if (rounds.length % 8 === 0) await plain.query('VACUUM capsule_metrics')
}
console.log(
  `${rounds.length} rounds: p50 ${round(median(rounds))}, p99 ${round(percentile(rounds, 99))} ms; ${await size(plain)}`,
)

const history = new CapsuleHistory({ db, host })
const rows = await db.selectFrom('capsules').select(['id', 'seq']).execute()
for (const [name, backSec] of [
  ['10m', 600],
  ['2h', 7_200],
  ['24h', 86_400],
] as const) {
  const samples: number[] = []
  let points = 0
  for (let read = 0; read < READS; read++) {
    const row = rows[(read * 7919) % rows.length]
    if (row === undefined) throw new Error('there are capsules')
    const { ms, value } = await timed(() => history.read(row, { fromSec: Date.now() / 1000 - backSec + 5 }))
    samples.push(ms)
    points = value.points.length
  }
  console.log(
    `read ${name}, ${points} points: p50 ${round(median(samples), 2)}, p99 ${round(percentile(samples, 99), 2)} ms`,
  )
}
link.close()
await plain.end()
await db.destroy()
