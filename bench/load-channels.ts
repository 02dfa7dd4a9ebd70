// node --conditions=wrenn-source --import tsx bench/load-channels.ts [--events 10000] [--channels 50] [--fan-out 5]
// Events to channels of which a tenth is down, a tenth slow and a tenth limited: whether each of the others has all of its events once and in
// order, and when; and whether nothing is missing after the rest has come back. Two dispatchers share the work, as two control planes do;
// the targets are a process of their own. Each event goes to `fan-out` channels, those of its team.
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { silentLogger } from '@wrenn/base'
import { permissionsOf } from '@wrenn/protocol'
import { startTestPostgres } from '@wrenn/testkit'
import { Client } from 'pg'
import { Channels } from '../apps/control-plane/src/domain/channels/channels.js'
import { ChannelDispatcher } from '../apps/control-plane/src/domain/channels/dispatcher.js'
import { Keyring } from '../apps/control-plane/src/domain/secrets/keyring.js'
import { parseNetworks } from '../apps/control-plane/src/notify/address-rule.js'
import { Sender } from '../apps/control-plane/src/notify/sender.js'
import { migrateUp, openDatabase } from '../apps/control-plane/src/store/database.js'
import { Notifications } from '../apps/control-plane/src/store/notifications.js'
import { createTeam } from '../apps/control-plane/src/store/teams.js'
import { round } from './stats.js'

const CAPSULES = 20
const WRITERS = 4
const PER_TRANSACTION = 20
const SLOW_MS = 2_000
const PER_SECOND = 5
const WITHIN_MS = 60_000
const RECOVER_WITHIN_MS = 10 * 60_000

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '10000' },
    channels: { type: 'string', default: '50' },
    'fan-out': { type: 'string', default: '5' },
  },
})
const [EVENTS, CHANNELS, FAN_OUT] = [Number(values.events), Number(values.channels), Number(values['fan-out'])]
const TEAMS = CHANNELS / FAN_OUT

type Kind = 'healthy' | 'down' | 'slow' | 'limited'
/** What a target has seen. */
interface Seen {
  readonly kind: Kind
  readonly taken: number
  readonly twice: number
  readonly outOfOrder: number
  /** When the last one came, ms since 1970. */
  readonly lastAt: number
}

/** A tenth of each kind, spread over the teams. */
function kindOf(channel: number): Kind {
  const tenth = CHANNELS / 10
  const at = Math.floor(channel / TEAMS) + (channel % TEAMS) * FAN_OUT
  return at % 10 === 0 ? 'down' : at % 10 === 3 ? 'slow' : at % 10 === 6 && tenth > 0 ? 'limited' : 'healthy'
}

class Target {
  readonly #ids = new Set<string>()
  readonly #last = new Map<string, number>()
  #twice = 0
  #outOfOrder = 0
  #lastAt = 0
  #window = { second: 0, count: 0 }
  #isWell: boolean
  readonly #server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', async () => {
      if (!this.#isWell && this.kind === 'slow') await delay(SLOW_MS)
      if (!this.#isWell && this.kind === 'limited' && this.#isOver()) {
        response.writeHead(429, { 'retry-after': '1' }).end()
        return
      }
      this.#take(JSON.parse(body))
      response.writeHead(204).end()
    })
  })
  port = 0

  constructor(readonly kind: Kind) {
    this.#isWell = kind === 'healthy'
  }

  async start(): Promise<number> {
    this.#server.listen(this.port, '127.0.0.1')
    await once(this.#server, 'listening')
    this.port = (this.#server.address() as AddressInfo).port
    if (this.kind === 'down') this.#server.close()
    return this.port
  }

  async recover(): Promise<void> {
    this.#isWell = true
    if (this.kind !== 'down') return
    this.#server.listen(this.port, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  get seen(): Seen {
    return {
      ...{ kind: this.kind, taken: this.#ids.size, twice: this.#twice },
      ...{ outOfOrder: this.#outOfOrder, lastAt: this.#lastAt },
    }
  }

  #isOver(): boolean {
    const second = Math.floor(Date.now() / 1000)
    if (this.#window.second !== second) this.#window = { second, count: 0 }
    return ++this.#window.count > PER_SECOND
  }

  #take({ id, resource, data }: { id: string; resource: { id: string }; data: { n: number } }): void {
    this.#lastAt = Date.now()
    if (this.#ids.has(id)) this.#twice++
    this.#ids.add(id)
    const before = this.#last.get(resource.id) ?? -1
    if (data.n < before) this.#outOfOrder++
    this.#last.set(resource.id, Math.max(before, data.n))
  }
}

async function beTargets(): Promise<void> {
  const targets = Array.from({ length: CHANNELS }, (_, at) => new Target(kindOf(at)))
  process.on('message', async (message) => {
    if (message === 'recover') for (const each of targets) await each.recover()
    process.send?.(targets.map(({ seen }) => seen))
  })
  process.send?.(await Promise.all(targets.map((each) => each.start())))
}

async function ask<T>(child: ChildProcess, message: string): Promise<T> {
  child.send(message)
  const [answer] = await once(child, 'message')
  return answer
}

/** Each writer has teams of its own, so that what happens to a capsule happens in its order. */
async function write(url: string, teams: readonly string[], writer: number): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  const perTeam = EVENTS / TEAMS
  for (let n = 0; n < perTeam; n += PER_TRANSACTION) {
    for (const [at, team] of teams.entries()) {
      if (at % WRITERS !== writer) continue
      await client.query(
        `INSERT INTO events (team_id, type, resource_id, data)
          SELECT $1, 'capsule.updated', 'cl-' || (n % $2), jsonb_build_object('n', n, 'name', 'box')
          FROM generate_series($3::int, $4::int) AS n`,
        [team, CAPSULES, n, n + PER_TRANSACTION - 1],
      )
    }
  }
  await client.end()
}

function tell(label: string, seen: readonly Seen[], since: number): void {
  for (const kind of ['healthy', 'limited', 'slow', 'down'] as const) {
    const all = seen.filter((each) => each.kind === kind)
    const sum = (of: (each: Seen) => number): number => all.reduce((total, each) => total + of(each), 0)
    const last = Math.max(...all.map(({ lastAt }) => lastAt))
    console.log(
      `${label} ${all.length} ${kind}: ${sum((each) => each.taken)} taken, each at least ${Math.min(...all.map(({ taken }) => taken))}, twice ${sum((each) => each.twice)}, out of order ${sum((each) => each.outOfOrder)}, last after ${last < since ? '-' : `${round((last - since) / 1000, 1)} s`}`,
    )
  }
}

async function logSize(url: string): Promise<string> {
  const client = new Client({ connectionString: url })
  await client.connect()
  const query = "SELECT pg_size_pretty(pg_total_relation_size('channel_deliveries')) AS size"
  const { rows } = await client.query<{ size: string }>(query)
  await client.end()
  return rows[0]?.size ?? ''
}

async function run(): Promise<void> {
  await using postgres = await startTestPostgres()
  const { url } = postgres
  const db = openDatabase({ url, maxConnections: 10 })
  await migrateUp(db)
  const child = fork(new URL(import.meta.url), process.argv.slice(2), { env: { ...process.env, BENCH_TARGETS: '1' } })
  const [ports] = (await once(child, 'message')) as [number[]]
  const keyring = new Keyring([Buffer.alloc(32, 1)])
  const allowed = parseNetworks('127.0.0.1') ?? []
  const teams = await Promise.all(Array.from({ length: TEAMS }, (_, at) => createTeam(db, `Team ${at}`)))
  const channels = new Channels({ db, keyring, sender: new Sender({ allowed }) })
  const actor = { id: 'key-bench', name: 'bench', requestId: 'req-bench', ip: '127.0.0.1' }
  const scopes = ['admin', 'read'] as const
  const permissions = permissionsOf(scopes)
  for (const [at, port] of ports.entries()) {
    const config = { url: `http://127.0.0.1:${port}/` }
    const input = { name: `channel ${at}`, provider: 'webhook', config, events: ['*'] } as const
    const maker = {
      kind: 'key',
      id: actor.id,
      name: actor.name,
      teamId: teams[at % TEAMS] ?? '',
      scopes,
      permissions,
    } as const
    await channels.create({ ...maker, expiresAt: undefined }, { ...input, events: ['*'] }, actor)
  }
  const planes = [1, 2].map(() => {
    const own = openDatabase({ url, maxConnections: 10 })
    const notifications = new Notifications({ url, logger: silentLogger })
    const sender = new Sender({ allowed })
    const dispatcher = new ChannelDispatcher({
      db: own,
      notifications,
      sender,
      keyring,
      logger: silentLogger,
      lookEveryMs: 1_000,
    })
    notifications.start()
    dispatcher.start()
    return { own, notifications, dispatcher }
  })
  const perChannel = EVENTS / TEAMS
  const since = Date.now()
  await Promise.all(Array.from({ length: WRITERS }, (_, writer) => write(url, teams, writer)))
  console.log(
    `${EVENTS} events written in ${round((Date.now() - since) / 1000, 1)} s, each to ${FAN_OUT} of ${CHANNELS} channels: ${EVENTS * FAN_OUT} deliveries`,
  )
  let seen = await ask<Seen[]>(child, 'report')
  const isDone = (all: readonly Seen[]): boolean => all.every(({ taken }) => taken >= perChannel)
  while (!isDone(seen.filter(({ kind }) => kind === 'healthy')) && Date.now() - since < WITHIN_MS) {
    await delay(200)
    seen = await ask<Seen[]>(child, 'report')
  }
  tell('with a part away:', seen, since)
  const recoveredAt = Date.now()
  await ask(child, 'recover')
  while (!isDone(seen) && Date.now() - recoveredAt < RECOVER_WITHIN_MS) {
    await delay(500)
    seen = await ask<Seen[]>(child, 'report')
  }
  tell('after recovery:', seen, recoveredAt)
  const missing = seen.reduce((sum, { taken }) => sum + perChannel - taken, 0)
  console.log(`missing: ${missing}; memory ${round(process.memoryUsage.rss() / 2 ** 20)} MiB`)
  console.log(`the log has ${await logSize(url)}`)
  for (const { own, notifications, dispatcher } of planes) {
    await dispatcher.stop()
    await notifications.stop()
    await own.destroy()
  }
  child.kill()
  await db.destroy()
  process.exitCode = missing === 0 ? 0 : 1
}

await (process.env.BENCH_TARGETS === '1' ? beTargets() : run())
