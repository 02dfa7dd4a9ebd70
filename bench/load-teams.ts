// node --conditions=wrenn-source --import tsx bench/load-teams.ts [--rows 1000000] [--port 8206]
// What teams and people cost the control plane: reads of a team with a million ended capsules and audit entries beside the same
// reads when there were few, how fast its trail is chained and verified, a flood of wrong logins, and how alike the answers to known and unknown
// addresses are.
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import { Client } from 'pg'
import { CLI, type Platform } from './platform.js'
import { log, withPlatform } from './soak.js'
import { median, percentile, round, timed } from './stats.js'

const READS = 300
const FLOOD_SECONDS = 10
const FLOOD_PER_SECOND = 100
const LOGINS = 15
const PASSWORD = 'correct horse battery'

const { values } = parseArgs({
  options: { rows: { type: 'string', default: '1000000' }, port: { type: 'string', default: '8206' } },
})
const rows = Number(values.rows)
const url = `http://127.0.0.1:${values.port}`

/** Median and 99th percentile, ms. */
function showMs(samples: readonly number[]): string {
  return `p50 ${round(median(samples), 2)}, p99 ${round(percentile(samples, 99), 2)} ms (${samples.length})`
}

async function reads(platform: Platform, capsuleId: string): Promise<Record<string, number[]>> {
  const paths = {
    'list capsules, a page of 50': '/v1/capsules?limit=50',
    'list ended ones, a page of 50': '/v1/capsules?status=all&limit=50',
    'get a capsule': `/v1/capsules/${capsuleId}`,
    'filter capsules by name': '/v1/capsules?status=all&limit=50&name=kept',
    'filter capsules by label': '/v1/capsules?status=all&limit=50&label=kind%3Dkept',
    'list audit entries': '/v1/audit-logs?limit=50',
    'filter audit entries by action': '/v1/audit-logs?limit=50&action=capsule.create',
    'filter audit entries by capsule': `/v1/audit-logs?limit=50&resource_id=${capsuleId}`,
  }
  const found: Record<string, number[]> = {}
  for (const [name, path] of Object.entries(paths)) {
    await platform.call('GET', path)
    const samples: number[] = []
    for (let read = 0; read < READS; read++) samples.push((await timed(() => platform.call('GET', path))).ms)
    found[name] = samples
  }
  return found
}

/** Copies a row many times, under other ids. */
async function multiply(db: Client, table: string, id: string, fresh: Readonly<Record<string, string>>): Promise<void> {
  const { rows: columns } = await db.query<{ name: string }>(
    `SELECT column_name AS name FROM information_schema.columns
     WHERE table_name = $1 AND is_generated = 'NEVER' AND is_identity = 'NO' ORDER BY ordinal_position`,
    [table],
  )
  const names = columns.map(({ name }) => name).filter((name) => fresh[name] !== '')
  const values = names.map((name) => fresh[name] ?? `t.${name}`)
  const step = 100_000
  for (let from = 1; from <= rows; from += step) {
    const to = Math.min(rows, from + step - 1)
    await db.query(
      `INSERT INTO ${table} (${names.join(', ')}) SELECT ${values.join(', ')}
       FROM ${table} AS t, generate_series(${from}, ${to}) AS n WHERE t.id = $1`,
      [id],
    )
  }
}

async function fill(platform: Platform, db: Client, capsuleId: string): Promise<void> {
  const { ms } = await timed(async () => {
    await db.query("SET session_replication_role = 'replica'")
    await multiply(db, 'capsules', capsuleId, {
      id: "'cl-' || substr(md5(n::text) || md5((-n)::text), 1, 25)",
      name: "'many-' || n",
      labels: `'{"kind":"many"}'::jsonb`,
      created_at: "now() - n * interval '1 second'",
      seq: '',
    })
    await db.query("SET session_replication_role = 'origin'")
  })
  log(`${rows} ended capsules after ${round(ms / 1000)} s`)
  const { rows: found } = await db.query<{ id: string }>(
    "SELECT id FROM audit_log WHERE resource_id = $1 AND action = 'capsule.create' LIMIT 1",
    [capsuleId],
  )
  const [entry] = found
  if (entry === undefined) throw new Error('The create of the capsule is not in the trail.')
  const chained = await timed(async () => {
    await multiply(db, 'audit_log', entry.id, {
      id: "'bench-' || n",
      resource_id: "'cl-' || substr(md5(n::text) || md5((-n)::text), 1, 25)",
      at: "now() - n * interval '1 millisecond'",
      ...{ seq: 'NULL', prev_hash: 'NULL', hash: 'NULL' },
    })
    for (;;) {
      const { rows: open } = await db.query('SELECT FROM audit_log WHERE seq IS NULL LIMIT 1')
      if (open.length === 0) return
      await delay(1_000)
    }
  })
  log(`${rows} audit entries written and chained after ${round(chained.ms / 1000)} s`)
  await db.query('ANALYZE')
  await platform.call('GET', '/v1/capsules')
}

async function verify(platform: Platform): Promise<void> {
  const file = join(platform.dir, 'trail.jsonl')
  const headers = { 'x-api-key': platform.clientEnv.WRENN_API_KEY ?? '' }
  const exported = await timed(async () => {
    const answer = await fetch(`${url}/v1/audit-logs/export`, { headers })
    if (answer.body === null) throw new Error(`The export answers ${answer.status}.`)
    // The same class in the words of the DOM.
    await pipeline(Readable.fromWeb(answer.body as Parameters<typeof Readable.fromWeb>[0]), createWriteStream(file))
  })
  const verified = await timed(async () => await promisify(execFile)(process.execPath, [CLI, 'audit', 'verify', file]))
  log(verified.value.stdout.trim())
  log(
    `export: ${round(rows / (exported.ms / 1000), 0)} entries/s; verify: ${round(rows / (verified.ms / 1000), 0)} entries/s`,
  )
}

async function post(path: string, body: object, from: string): Promise<Response> {
  const headers = { 'content-type': 'application/json', 'x-forwarded-for': from }
  return await fetch(`${url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
}

async function addPerson(platform: Platform, email: string): Promise<void> {
  const made = await platform.call<{ activation_token: string }>('POST', '/v1/admin/users', { email, name: 'Somebody' })
  const answer = await post('/v1/auth/activate', { token: made.activation_token, password: PASSWORD }, '192.0.2.1')
  if (answer.status >= 300) throw new Error(`activation: ${answer.status} ${await answer.text()}`)
}

async function login(email: string, password: string, from: string): Promise<{ ms: number; status: number }> {
  const { ms, value } = await timed(async () => await post('/v1/auth/login', { email, password }, from))
  await value.arrayBuffer()
  return { ms, status: value.status }
}

async function flood(platform: Platform, email: string): Promise<void> {
  const others: number[] = []
  const statuses = new Map<number, number>()
  const flooding = Array.from({ length: FLOOD_SECONDS * FLOOD_PER_SECOND }, async (_, index) => {
    await delay((index * 1000) / FLOOD_PER_SECOND)
    const { status } = await login(email, 'not the password', '198.51.100.7')
    statuses.set(status, (statuses.get(status) ?? 0) + 1)
  })
  const end = performance.now() + FLOOD_SECONDS * 1000
  const inside = delay(FLOOD_SECONDS * 500).then(async () => await login(email, PASSWORD, '203.0.113.9'))
  while (performance.now() < end) {
    others.push((await timed(() => platform.call('GET', '/v1/capsules?limit=50'))).ms)
    await delay(20)
  }
  await Promise.all(flooding)
  const right = await inside
  log(`${FLOOD_PER_SECOND} wrong logins/s for ${FLOOD_SECONDS} s: ${JSON.stringify(Object.fromEntries(statuses))}`)
  log(
    `other calls meanwhile: ${showMs(others)}; the right one from elsewhere: ${right.status} after ${round(right.ms, 0)} ms`,
  )
}

async function alike(email: string): Promise<void> {
  const known: number[] = []
  const unknown: number[] = []
  for (let turn = 0; turn < LOGINS; turn++) {
    // Another place each time: nobody is to be limited.
    known.push((await login(email, 'not the password', `203.0.113.${turn + 20}`)).ms)
    unknown.push((await login(`nobody-${turn}@example.com`, 'not the password', `203.0.113.${turn + 120}`)).ms)
  }
  log(`wrong password, known address: ${showMs(known)}; unknown address: ${showMs(unknown)}`)
}

const env = { WRENN_TRUSTED_PROXIES: '127.0.0.1' }
await withPlatform(
  Number(values.port),
  async (platform) => {
    const { id } = await platform.create({ name: 'kept', labels: { kind: 'kept' } })
    await platform.destroy(id)
    const email = `somebody-${randomBytes(4).toString('hex')}@example.com`
    await addPerson(platform, email)
    await alike(email)
    await flood(platform, email)
    const idle = await reads(platform, id)
    const db = new Client(
      `postgresql://postgres@${encodeURIComponent(join(platform.dir, 'postgres/socket'))}:5432/wrenn`,
    )
    await db.connect()
    try {
      await fill(platform, db, id)
    } finally {
      await db.end()
    }
    const full = await reads(platform, id)
    for (const [name, samples] of Object.entries(full)) {
      const before = idle[name] ?? []
      const more = round(percentile(samples, 99) - percentile(before, 99), 2)
      log(`${name}: ${showMs(samples)}; with few rows ${showMs(before)}; p99 ${more} ms more`)
    }
    await verify(platform)
  },
  env,
)
