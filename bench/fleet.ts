// node --conditions=wrenn-source --import tsx bench/fleet.ts [--hosts 100,1000,10000] [--capsules 100] [--decisions 400] [--steady 30] [--json]
// What hosts and capsules cost a control plane: the real tables, triggers, scheduler and reconciler on a PostgreSQL of its own that flushes each commit, with
// hosts that answer from this process in the messages of the wire, without a network. As root.
import { readdir, readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { capsuleIds, silentLogger } from '@wrenn/base'
import { startTestPostgres } from '@wrenn/testkit'
import { Client } from 'pg'
import { Placement, rememberHost } from '../apps/control-plane/src/domain/hosts/index.js'
import { HostReconciler } from '../apps/control-plane/src/domain/reconcile/host-reconciler.js'
import { Reconciler } from '../apps/control-plane/src/domain/reconcile/index.js'
import { Hosts } from '../apps/control-plane/src/host/hosts.js'
import { insertCapsule } from '../apps/control-plane/src/store/capsules.js'
import { type Db, migrateUp, openDatabase } from '../apps/control-plane/src/store/database.js'
import { touchHost } from '../apps/control-plane/src/store/hosts.js'
import { listHostLoads } from '../apps/control-plane/src/store/placement.js'
import { createTeam } from '../apps/control-plane/src/store/teams.js'
import { seedFleet } from './fleet/seed.js'
import { type SimulatedHost, simulateHost } from './fleet/simulated-host.js'
import { median, percentile, round, timed } from './stats.js'

/** Between two comparisons of a host that is well. */
const INTERVAL_MS = 30_000
const MS_PER_TICK = 10
const HEARTBEATS = 500
/** Of hosts that are compared beside each other, as they would come in an interval. */
const COMPARED_AT_ONCE = 16
const SHARE = { vcpusPerCpu: 4, memoryPercent: 90, placement: 'spread' } as const
const SILENT_MS = 45_000

const { values } = parseArgs({
  options: {
    hosts: { type: 'string', default: '100,1000,10000' },
    capsules: { type: 'string', default: '100' },
    decisions: { type: 'string', default: '400' },
    steady: { type: 'string', default: '30' },
    json: { type: 'boolean', default: false },
  },
})
const perHost = Number(values.capsules)
const decisions = Number(values.decisions)
process.env.WRENN_TEST_POSTGRES ??= 'embedded' // the other one of the suites does not flush

interface Fleet {
  readonly db: Db
  readonly plain: Client
  readonly hosts: Hosts
  readonly placement: Placement
  readonly simulated: readonly SimulatedHost[]
  readonly teamId: string
}

const say = (text: string): void => void (values.json ? process.stderr : process.stdout).write(`${text}\n`)
const both = (samples: readonly number[]): string =>
  `${round(median(samples), 2)} ms (p99 ${round(percentile(samples, 99), 2)})`

/** A choice and its promise, as a create makes them: one transaction. */
async function decide({ db, placement, teamId }: Fleet): Promise<number> {
  const id = capsuleIds.create()
  const size = { vcpus: 1, memory_mib: 512, disk_size_mib: 1024 }
  return (
    await timed(() =>
      db.transaction().execute(async (tx) => {
        const wanted = { vcpus: 1, memoryMib: 512, template: 'minimal' }
        const { hostId } = await placement.place(tx, wanted)
        await insertCapsule(tx, {
          ...{ id, team_id: teamId, template: 'minimal', ...size, host_id: hostId, labels: '{}', envs: '{}' },
          ...{ timeout_sec: 0, default_user: '', default_cwd: '', state: 'pending', desired_state: 'running' },
        })
      }),
    )
  ).ms
}

async function parallel<T>(of: readonly T[], atOnce: number, work: (each: T) => Promise<void>): Promise<void> {
  const rest = of.values()
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (const each of rest) await work(each)
    }),
  )
}

async function decisionsOf(fleet: Fleet, atOnce: number): Promise<number[]> {
  const samples: number[] = []
  await parallel(Array.from({ length: decisions }), atOnce, async () => void samples.push(await decide(fleet)))
  return samples
}

async function heartbeats({ db, simulated }: Fleet): Promise<{ noted: number[]; told: number[] }> {
  const [noted, told]: [number[], number[]] = [[], []]
  for (let n = 0; n < HEARTBEATS; n++) {
    const { host } = simulated[n % simulated.length] ?? missing()
    noted.push((await timed(() => touchHost(db, host.joinedId ?? ''))).ms)
    const status = await host.status()
    told.push((await timed(() => rememberHost(db, host, status))).ms)
  }
  return { noted, told }
}

function reconcilersOf({ db, hosts, simulated }: Fleet): readonly HostReconciler[] {
  const times = { silentMs: SILENT_MS, lostGraceMs: 60_000 }
  const deps = { db, logger: silentLogger, limits: { quota: { poolBytes: 0 } }, isOnly: () => false, ...times }
  const snapshots = { settle: async () => {} } // there are none
  const copiesOf = (id: string) => hosts.copiesOf(id)
  return simulated.map(({ host }) => new HostReconciler({ ...deps, host, copiesOf, snapshots } as never))
}

async function compareAll(reconcilers: readonly HostReconciler[]): Promise<number> {
  return (await timed(() => parallel(reconcilers, COMPARED_AT_ONCE, (each) => each.compare()))).ms
}

/** What a control plane takes of a CPU that looks after all of them and has nothing else to do, and the database with it. */
async function steady({ db, hosts, plain }: Fleet): Promise<{ readonly node: number; readonly database: number }> {
  const operations = { resumeExpired: async () => {} }
  const limits = { quota: { poolBytes: 0 } }
  const times = { silentMs: SILENT_MS, lostGraceMs: 60_000, retentionMs: 86_400_000 }
  const snapshots = { settle: async () => {} }
  const deps = { db, host: hosts, operations, snapshots, logger: silentLogger, limits, ...times }
  const reconciler = new Reconciler(deps as never)
  const seconds = Number(values.steady)
  reconciler.start()
  try {
    // The first comparisons come all at once.
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS + 2_000))
    const before = { node: process.cpuUsage(), database: await cpuOfDatabase(plain) }
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
    const { user, system } = process.cpuUsage(before.node)
    const database = (await cpuOfDatabase(plain)) - before.database
    return { node: (user + system) / 10_000 / seconds, database: database / 10 / seconds }
  } finally {
    await reconciler.stop()
  }
}

/** So far, with its processes that have ended: proc(5). */
async function cpuOfDatabase(plain: Client): Promise<number> {
  const { rows } = await plain.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
  const server = (await statOf(rows[0]?.pid ?? 0))?.parent ?? 0
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const stats = await Promise.all(pids.map(statOf))
  const own = stats.filter((each) => each?.parent === server).reduce((sum, each) => sum + (each?.ticks ?? 0), 0)
  return ((await statOf(server))?.endedTicks ?? 0) * MS_PER_TICK + own * MS_PER_TICK
}

async function statOf(pid: number) {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '') // it has ended
  const fields = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number)
  const at = (index: number): number => fields[index] ?? 0
  return stat === '' ? undefined : { parent: at(1), ticks: at(11) + at(12), endedTicks: at(13) + at(14) }
}

function missing(): never {
  throw new Error('there are no hosts')
}

const results: object[] = []
for (const count of values.hosts.split(',').map(Number)) {
  await using postgres = await startTestPostgres()
  const db = openDatabase({ url: postgres.url })
  await migrateUp(db)
  const plain = new Client({ connectionString: postgres.url })
  await plain.connect()
  const teamId = await createTeam(db, 'Fleet')
  const seeded = await seedFleet(plain, { teamId, hosts: count, perHost })
  const hosts = Hosts.joining({
    hostOf: async () => undefined,
    isUnplaced: async () => false,
    isGone: async () => false,
  })
  const simulated = seeded.map((each) => simulateHost(each))
  for (const { link } of simulated) hosts.add(link)
  const fleet = { db, plain, hosts, placement: new Placement({ db, hosts, share: SHARE }), simulated, teamId }
  say(`\n${count} hosts, ${count * perHost} capsules`)
  const looked: number[] = []
  for (let n = 0; n < 5; n++) looked.push((await timed(() => listHostLoads(db))).ms)
  say(`  looking at the load of all          ${both(looked)}`)
  await decisionsOf(fleet, 1)
  const [alone, busy] = [await decisionsOf(fleet, 1), await decisionsOf(fleet, 8)]
  say(`  choice and promise, one at a time   ${both(alone)}`)
  say(`  choice and promise, 8 at once       ${both(busy)}`)
  const { noted, told } = await heartbeats(fleet)
  say(`  heartbeat noted; with what it has   ${both(noted)}; ${both(told)}`)
  const reconcilers = reconcilersOf(fleet)
  const first = await compareAll(reconcilers)
  for (let seen = 0; seen < perHost; seen += 20) await compareAll(reconcilers)
  const full = await compareAll(reconcilers)
  say(`  all compared, when all differ       ${round(first / 1000, 1)} s`)
  say(`  all compared, nothing new           ${round(full / 1000, 1)} s (interval ${INTERVAL_MS / 1000} s)`)
  const cost = Number(values.steady) > 0 ? await steady(fleet) : undefined
  if (cost !== undefined)
    say(`  looked after all the time           ${round(cost.node)} % of a CPU, database ${round(cost.database)} %`)
  results.push({ count, capsules: count * perHost, looked, alone, busy, noted, told, first, full, cost })
  await plain.end()
  await db.destroy()
}
if (values.json) process.stdout.write(`${JSON.stringify(results)}\n`)
