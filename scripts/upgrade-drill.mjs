// node scripts/upgrade-drill.mjs [--json] QEMU...
// What an upgrade of QEMU does to what was saved before it, on a platform of its own: capsules, a snapshot and a template are made
// and paused by the first program, then found by each next one. Each argument is a program for WRENN_QEMU; with none the host's
// own, those of Debian trixie and sid (unpacked by unpack-qemu.mjs below WRENN_DRILL_CACHE), and the host's again. The platform
// is placed by the usual WRENN_* variables and removed at the end. Needs root and built artefacts (npm run build). Ends with 0
// when nothing was lost: each state went on with its memory, or was refused with a clear answer and its capsule started from disk.
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const program = join(root, 'apps/cli/bin/wrenn.mjs')
const cache = process.env.WRENN_DRILL_CACHE ?? '/var/cache/wrenn-qemu'
const port = process.env.WRENN_PORT ?? '8000'
const dir = process.env.WRENN_DIR ?? '/var/lib/wrenn'
const READY_MS = 20 * 60_000
const WAIT_SEC = 300
const isJson = process.argv.includes('--json')
const given = process.argv.slice(2).filter((argument) => argument !== '--json')

/** Holds a nonce in memory and counts; each count is a committed row of a database. */
const WITNESS = `
import hashlib, os, sqlite3, time
nonce = os.urandom(1 << 20)
db = sqlite3.connect('/root/drill.db')
db.execute('PRAGMA journal_mode=WAL')
db.execute('PRAGMA synchronous=FULL')
db.execute('CREATE TABLE IF NOT EXISTS t (n INTEGER, at REAL)')
n = db.execute('SELECT coalesce(max(n), 0) FROM t').fetchone()[0]
while True:
    n += 1
    db.execute('INSERT INTO t VALUES (?, ?)', (n, time.time()))
    db.commit()
    with open('/dev/shm/draft', 'w') as f: f.write('%d %s' % (n, hashlib.sha256(nonce).hexdigest()))
    os.rename('/dev/shm/draft', '/dev/shm/witness')
    time.sleep(0.1)
`
const CHECK_DB = `import sqlite3; db = sqlite3.connect('/root/drill.db')
print(db.execute('PRAGMA integrity_check').fetchone()[0], db.execute('SELECT max(n) FROM t').fetchone()[0])`

/** @typedef {{ id: string, hash: string, count: number, what: string }} Subject */
/** @typedef {{ state: string, path?: string, notice?: string, engine?: { version?: string } }} Capsule */

class Refused extends Error {
  /** @param {string} code @param {string} message @param {string} hint */
  constructor(code, message, hint) {
    super(`${code}: ${message}`)
    this.code = code
    this.hint = hint
  }
}

/** @param {string} method @param {string} path @param {object} [body] @returns {Promise<any>} the answer's shape is its route's */
async function call(method, path, body) {
  const headers = { 'X-API-Key': readFileSync(join(dir, 'api-key'), 'utf8').trim() }
  const json = body && { headers: { ...headers, 'content-type': 'application/json' }, body: JSON.stringify(body) }
  const signal = AbortSignal.timeout((WAIT_SEC + 60) * 1000)
  const response = await fetch(`http://127.0.0.1:${port}/v1${path}`, { method, headers, signal, ...json })
  const text = await response.text()
  if (response.ok) return text === '' ? undefined : JSON.parse(text)
  const { code, message, hint = '' } = JSON.parse(text).error
  throw new Refused(code, message, hint)
}

/** @param {string} id @param {string} verb @param {object} [body] */
const move = (id, verb, body) => call('POST', `/capsules/${id}/${verb}?wait_sec=${WAIT_SEC}`, body)

/** @param {string} id @param {...string} args */
async function sh(id, ...args) {
  const { stdout, stderr, exit_code } = await call('POST', `/capsules/${id}/exec`, {
    cmd: args[0],
    args: args.slice(1),
    timeout_sec: 120,
  })
  if (exit_code !== 0) throw new Error(`${args.slice(0, 2).join(' ')} in ${id} ended with ${exit_code}: ${stderr}`)
  return stdout.trim()
}

/** Until a capsule that was asked for runs. @param {Capsule & { id: string }} capsule @returns {Promise<Capsule & { id: string }>} */
async function running(capsule) {
  for (let now = capsule; ; now = await call('GET', `/capsules/${capsule.id}`)) {
    if (now.state === 'running') return now
    if (now.state === 'error') throw new Error(`${now.id} did not start: ${JSON.stringify(now)}`)
    await delay(200)
  }
}

/** @param {object} [body] */
const create = async (body = {}) => await running(await call('POST', '/capsules', body))

/** Starts the witness in a capsule that has none. @param {string} id @param {string} what @returns {Promise<Subject>} */
async function witness(id, what) {
  await call('POST', `/capsules/${id}/exec`, { cmd: 'python3', args: ['-c', WITNESS], background: true })
  const [count, hash] = await look(id)
  return { id, hash, count, what }
}

/** @param {string} id @returns {Promise<[number, string]>} */
async function look(id) {
  const text = await sh(id, 'sh', '-c', 'until [ -s /dev/shm/witness ]; do sleep 0.1; done; cat /dev/shm/witness')
  const [count = '', hash = ''] = text.split(' ')
  return [Number(count), hash]
}

/** The witness goes on with what it had in memory, and its database is whole. @param {Subject} subject @param {string} [id] */
async function expectMemory(subject, id = subject.id) {
  const [count, hash] = await look(id)
  if (hash !== subject.hash) throw new Error(`${subject.what}: the memory of ${id} is another`)
  if (count < subject.count) throw new Error(`${subject.what}: ${id} counted to ${count}, before to ${subject.count}`)
  const script = `until set -- $(cat /dev/shm/witness) && [ "$1" -gt ${count} ]; do sleep 0.1; done`
  await sh(id, 'timeout', '60', 'sh', '-c', script)
  await expectFiles(subject, id)
  return count
}

/** Every row that was committed before the pause is there. @param {Subject} subject @param {string} [id] */
async function expectFiles(subject, id = subject.id) {
  const [whole, rows] = (await sh(id, 'python3', '-c', CHECK_DB)).split(' ')
  if (whole !== 'ok' || Number(rows) < subject.count) {
    throw new Error(`${subject.what}: the database of ${id} is ${whole} with ${rows} rows, before ${subject.count}`)
  }
}

/** @param {Subject} subject */
async function pause(subject) {
  const [count] = await look(subject.id)
  subject.count = count
  const { state } = await move(subject.id, 'pause')
  if (state !== 'paused') throw new Error(`${subject.what} is ${state} after its pause`)
  return 'paused'
}

/** @param {string} qemu @returns {Promise<{ version: string, down: () => Promise<void> }>} */
async function up(qemu) {
  const child = spawn(process.execPath, [program, 'up', '--json', '--port', port], {
    env: { ...process.env, WRENN_QEMU: qemu },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  let said = ''
  child.stdout.on('data', (bytes) => {
    said += bytes
  })
  const deadline = performance.now() + READY_MS
  while (!said.includes('"event":"ready"')) {
    if (child.exitCode !== null) throw new Error(`wrenn up with ${qemu} ended with ${child.exitCode}`)
    if (performance.now() > deadline)
      throw new Error(`wrenn up with ${qemu} is not ready after ${READY_MS / 60_000} minutes`)
    await delay(100)
  }
  const version = spawnSync(qemu, ['--version'], { encoding: 'utf8' }).stdout.match(/version (\S+)/)?.[1] ?? qemu
  const down = async () => {
    child.kill('SIGTERM')
    await ended
  }
  return { version, down }
}

class Drill {
  /** @type {Map<string, string[]>} */
  rows = new Map()
  /** @type {string[]} */
  failures = []
  stage = 0

  /** One cell of the table. @param {string} row @param {() => Promise<string>} work */
  async cell(row, work) {
    const cells = this.rows.get(row) ?? []
    this.rows.set(row, cells)
    while (cells.length < this.stage) cells.push('–')
    const startedAt = performance.now()
    let text
    try {
      text = await work()
    } catch (error) {
      text = `FAILED: ${error instanceof Error ? error.message : error}`
      this.failures.push(`${row}: ${text}`)
    }
    cells[this.stage] = text
    process.stderr.write(`  ${row}: ${text} (${((performance.now() - startedAt) / 1000).toFixed(1)} s)\n`)
  }
}

/** @param {unknown} error */
function requireClearRefusal(error) {
  if (!(error instanceof Refused) || error.code !== 'state_not_loadable') throw error
  if (!error.hint.includes('{"from": "disk"}')) throw new Error(`the refusal does not name the way out: ${error.hint}`)
}

/** Goes on with memory, or by the way out: the memory is kept as a checkpoint, the capsule starts from its disk. @param {Subject} subject */
async function goOn(subject) {
  try {
    await move(subject.id, 'resume')
    await expectMemory(subject)
    return 'memory'
  } catch (error) {
    requireClearRefusal(error)
  }
  await call('POST', `/capsules/${subject.id}/checkpoints?wait_sec=${WAIT_SEC}`, {})
  const { state } = await move(subject.id, 'resume', { from: 'disk' })
  if (state !== 'running') throw new Error(`${subject.what} is ${state} after the way out`)
  await expectFiles(subject)
  Object.assign(subject, await witness(subject.id, subject.what))
  return 'refused; from disk'
}

/** @param {Subject} subject @param {{ name: string, hash: string }} point */
async function rollBack(subject, point) {
  const path = `checkpoints/${point.name}/rollback`
  try {
    await move(subject.id, path)
    const [count, hash] = await look(subject.id)
    if (hash !== point.hash) throw new Error(`${point.name} has another memory`)
    Object.assign(subject, { count, hash })
    await expectMemory(subject)
    return 'memory'
  } catch (error) {
    requireClearRefusal(error)
  }
  await move(subject.id, path, { from: 'disk' })
  subject.count = 0
  await expectFiles(subject)
  Object.assign(subject, await witness(subject.id, subject.what))
  return 'refused; from disk'
}

/** @param {Subject} subject @returns {Promise<string>} */
async function forkAgain(subject) {
  const { capsules } = await call('POST', `/capsules/${subject.id}/fork?wait_sec=${WAIT_SEC}`, {})
  const copy = await running(capsules[0])
  await expectMemory(subject, copy.id)
  await call('DELETE', `/capsules/${copy.id}`)
  return 'memory'
}

/** @param {Subject} subject @param {string} name @returns {Promise<{ name: string, hash: string, count: number }>} */
async function snapshot(subject, name) {
  const [count, hash] = await look(subject.id)
  await call('POST', `/snapshots?wait_sec=${WAIT_SEC}`, { capsule_id: subject.id, name })
  return { name, hash, count }
}

/** @param {{ name: string, hash: string, count: number }} made @returns {Promise<string>} */
async function startFrom(made) {
  let capsule
  try {
    capsule = await create({ template: made.name })
  } catch (error) {
    // A create that fails after its first answer tells so in the capsule's record.
    if (!(error instanceof Error) || !/state_not_loadable|cannot be loaded/.test(error.message)) throw error
    return 'refused'
  }
  await expectMemory({ ...made, id: capsule.id, what: made.name })
  await call('DELETE', `/capsules/${capsule.id}`)
  return 'memory'
}

/** A create without options is never refused, also while its template is made anew. */
async function fromTemplate() {
  const { id, path } = await create()
  await sh(id, 'true')
  await call('DELETE', `/capsules/${id}`)
  return String(path ?? 'made')
}

async function main() {
  const unpacked = (/** @type {string} */ suite) => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(root, 'scripts/unpack-qemu.mjs'), suite, cache],
      { encoding: 'utf8' },
    )
    if (status !== 0) throw new Error(`QEMU of ${suite} cannot be had: ${stderr}`)
    return stdout.trim()
  }
  const own = 'qemu-system-x86_64'
  const programs = given.length > 0 ? given : [own, unpacked('trixie'), unpacked('sid'), own]
  const drill = new Drill()
  /** @type {string[]} */
  const versions = []
  /** @type {Subject[]} */
  let subjects = []
  /** @type {{ name: string, hash: string }[]} */
  const points = []
  /** @type {{ name: string, hash: string, count: number } | undefined} */
  let made
  for (const [stage, qemu] of programs.entries()) {
    drill.stage = stage
    const startedAt = performance.now()
    const platform = await up(qemu)
    versions.push(platform.version)
    process.stderr.write(
      `QEMU ${platform.version}, ready after ${((performance.now() - startedAt) / 1000).toFixed(0)} s\n`,
    )
    try {
      await drill.cell('create from the template', fromTemplate)
      if (stage === 0) {
        const database = await witness((await create({ name: 'database' })).id, 'busy database')
        const source = await witness((await create({ name: 'forked' })).id, 'forked')
        const { capsules } = await call('POST', `/capsules/${source.id}/fork?wait_sec=${WAIT_SEC}`, {})
        const copy = { ...source, id: (await running(capsules[0])).id, what: 'its copy' }
        const pointed = await witness((await create({ name: 'checkpoints' })).id, 'with checkpoints')
        for (const name of ['first', 'second']) {
          await call('POST', `/capsules/${pointed.id}/checkpoints?wait_sec=${WAIT_SEC}`, { name })
          points.push({ name, hash: pointed.hash })
        }
        subjects = [database, source, copy, pointed]
        made = await snapshot(source, 'drill')
        for (const subject of subjects) await drill.cell(`resume: ${subject.what}`, async () => 'made, paused')
        for (const { name } of points) await drill.cell(`rollback: ${name}`, async () => 'made')
        await drill.cell('snapshot of before: create', async () => 'made')
      } else {
        for (const subject of subjects) await drill.cell(`resume: ${subject.what}`, () => goOn(subject))
        const [, source, , pointed] = subjects
        if (source === undefined || pointed === undefined || made === undefined) throw new Error('nothing was made')
        for (const point of points) await drill.cell(`rollback: ${point.name}`, () => rollBack(pointed, point))
        await drill.cell('fork again', () => forkAgain(source))
        const old = made
        await drill.cell('snapshot of before: create', () => startFrom(old))
        await drill.cell(
          'snapshot again: create',
          async () => await startFrom(await snapshot(source, `drill-${stage}`)),
        )
      }
      for (const subject of subjects) await drill.cell(`pause: ${subject.what}`, () => pause(subject))
    } finally {
      await platform.down()
    }
  }
  report(drill, versions)
  if (drill.failures.length > 0) process.exitCode = 1
}

/** @param {Drill} drill @param {readonly string[]} versions */
function report({ rows, failures }, versions) {
  if (isJson) {
    process.stdout.write(`${JSON.stringify({ versions, rows: Object.fromEntries(rows), failures })}\n`)
    return
  }
  const lines = [
    ['', ...versions],
    ['---', ...versions.map(() => '---')],
    ...[...rows].map(([row, cells]) => [row, ...cells]),
  ]
  process.stdout.write(`\n${lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n`)
}

try {
  await main()
} finally {
  for (const args of [
    ['down', '--stop-capsules'],
    ['clean', '--yes'],
  ]) {
    if (process.env.WRENN_DRILL_KEEP !== '1') spawnSync(process.execPath, [program, ...args], { stdio: 'inherit' })
  }
}
