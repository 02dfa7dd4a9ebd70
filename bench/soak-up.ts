// node --conditions=wrenn-source --import tsx bench/soak-up.ts [--count 50] [--seed 1] [--port 8206]
// Kills every process of a platform but its guests at random moments, of its start too, and starts it again at once, as often as
// asked. A start counts as good when it becomes ready. After each one a running, a paused and a checkpointed capsule must be
// there and answer with what they held, and everything the API had acknowledged must be known.
import { execFileSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { errorText } from '@wrenn/base'
import { KillableUp } from './killable-up.js'
import { cleanDir, endOnSignal, scratchDir, stopPlatform } from './platform.js'
import { seededRandom } from './random.js'
import { log } from './soak.js'
import { percentile, round } from './stats.js'

const LONGEST_WORK_MS = 2000
/** A round of those that also wake and put to sleep again the paused capsule, and create one. */
const LONG_ROUND_EVERY = 10

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '50' },
    seed: { type: 'string', default: String(randomInt(2 ** 31)) },
    port: { type: 'string', default: '8206' },
  },
})
const count = Number(values.count)
const port = Number(values.port)
const seed = Number(values.seed)
const random = seededRandom(seed)
const kept = process.env.WRENN_BENCH_DIR
const dir = kept ?? (await scratchDir('wrenn-soak-'))
endOnSignal(() => stopPlatform(dir, kept === undefined))

interface Capsule {
  readonly id: string
  readonly state: string
  readonly name: string | null
}

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const key = (await readFile(join(dir, 'api-key'), 'utf8')).trim()
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
    method,
    headers: { 'x-api-key': key, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(240_000),
  })
  const said = await answer.text()
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${said}`)
  return said === '' ? (undefined as T) : JSON.parse(said) // T is what the caller knows of this route
}

async function create(name: string): Promise<string> {
  const { id, state } = await call<Capsule>('POST', '/v1/capsules?wait_sec=200', { name, memory_mb: 256 })
  if (state !== 'running') throw new Error(`${name} is ${state} after its create`)
  return id
}

async function sh(id: string, script: string): Promise<string> {
  const body = { cmd: '/bin/sh', args: ['-c', script], user: 'root', timeout_sec: 120 }
  const { exit_code, stdout, stderr } = await call<{ exit_code: number; stdout: string; stderr: string }>(
    'POST',
    `/v1/capsules/${id}/exec`,
    body,
  )
  if (exit_code !== 0) throw new Error(`${script} in ${id}: ${exit_code} ${stderr}`)
  return stdout.trim()
}

/** What the API said is so, and must say again. */
class Acknowledged {
  readonly created = new Map<string, string>()
  #renames = 0
  #tried = 0

  /** Renames a capsule again and again, until the platform is killed or `signal` says so. */
  async renameUntil(id: string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const number = ++this.#tried
      try {
        await call('PATCH', `/v1/capsules/${id}`, { name: `run-${number}` })
        this.#renames = number
      } catch {
        return // it was killed; nothing was acknowledged
      }
    }
  }

  isKnown(name: string | null): boolean {
    const number = Number(name?.replace('run-', ''))
    return number >= this.#renames && number <= this.#tried
  }

  get renames(): number {
    return this.#renames
  }
}

const USUAL_START_MS = 6_000
const NONCE = 'cat /dev/shm/nonce'
const acknowledged = new Acknowledged()
const lost: string[] = []
const failedStarts: string[] = []
const startMs: number[] = []
let killedStarts = 0
let up: KillableUp

/** Starts and kills at random moments, then starts for good; no wait in between. */
async function killAndStart(running: string): Promise<void> {
  const working = new AbortController()
  const work = acknowledged.renameUntil(running, working.signal)
  await delay(random() * LONGEST_WORK_MS)
  up.kill(random)
  up = new KillableUp(dir, port)
  while (random() < 0.5) {
    await delay(random() * percentile(laterStarts(), 95))
    up.kill(random)
    killedStarts++
    up = new KillableUp(dir, port)
  }
  working.abort()
  await work
}

/** Without the first, which makes images. */
function laterStarts(): number[] {
  return startMs.length > 1 ? startMs.slice(1) : [USUAL_START_MS]
}

async function becomeReady(turn: number): Promise<void> {
  try {
    startMs.push(await up.readyMs)
  } catch (error) {
    failedStarts.push(`start ${turn}: ${errorText(error)}`)
    log(failedStarts.at(-1) ?? '')
    up = new KillableUp(dir, port)
    await up.readyMs
  }
}

async function look(turn: number, what: string, probe: () => Promise<boolean>): Promise<void> {
  const isRight = await probe().catch((error: unknown) => {
    log(errorText(error))
    return false
  })
  if (!isRight) lost.push(`start ${turn}: ${what}`)
}

/** What the machine keeps of killed servers and mounts. */
function traces(): Record<string, number> {
  const below = (path: string): number => readFileSync(path, 'utf8').split(dir).length - 1
  return {
    'segments of shared memory': execFileSync('ipcs', ['-m']).toString().trim().split('\n').length - 2,
    'files in /dev/shm': readdirSync('/dev/shm').filter((name) => name.startsWith('PostgreSQL')).length,
    mounts: below('/proc/mounts'),
    loops:
      execFileSync('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']).toString().split(dir).length - 1,
  }
}

log(`seed ${seed}, ${dir}`)
up = new KillableUp(dir, port)
startMs.push(await up.readyMs)
// Of an earlier soak in a kept directory.
for (const { id } of await call<Capsule[]>('GET', '/v1/capsules')) await call('DELETE', `/v1/capsules/${id}`)
const running = await create('run-0')
const paused = await create('paused')
const marked = await create('marked')
const ids = { running, paused, marked }
const nonces = new Map<string, string>()
for (const id of Object.values(ids)) {
  nonces.set(id, await sh(id, `head -c 32 /dev/urandom | sha256sum | tee /dev/shm/nonce`))
}
const { id: checkpoint } = await call<{ id: string }>('POST', `/v1/capsules/${marked}/checkpoints?wait_sec=60`, {})
await sh(marked, 'touch /root/later')
await call('POST', `/v1/capsules/${paused}/pause?wait_sec=60`)
const before = traces()

async function holds(id: string): Promise<boolean> {
  return (await sh(id, NONCE)) === nonces.get(id)
}

async function check(turn: number): Promise<void> {
  const listed = new Map((await call<Capsule[]>('GET', '/v1/capsules')).map((one) => [one.id, one]))
  for (const [name, id] of Object.entries(ids)) if (!listed.has(id)) lost.push(`start ${turn}: the ${name} capsule`)
  for (const id of acknowledged.created.keys()) if (!listed.has(id)) lost.push(`start ${turn}: an acknowledged create`)
  if (!acknowledged.isKnown(listed.get(running)?.name ?? null)) lost.push(`start ${turn}: an acknowledged rename`)
  if (listed.get(paused)?.state !== 'paused') lost.push(`start ${turn}: paused is ${listed.get(paused)?.state}`)
  await look(turn, 'what the running capsule held', () => holds(running))
  await look(turn, 'what the capsule with a checkpoint held', () => holds(marked))
  const points = await call<{ id: string }[]>('GET', `/v1/capsules/${marked}/checkpoints`)
  if (!points.some(({ id }) => id === checkpoint)) lost.push(`start ${turn}: the checkpoint`)
}

async function checkLong(turn: number): Promise<void> {
  await call('POST', `/v1/capsules/${paused}/resume?wait_sec=120`)
  await look(turn, 'what the paused capsule held', () => holds(paused))
  await call('POST', `/v1/capsules/${paused}/pause?wait_sec=60`)
  for (const id of acknowledged.created.keys()) await call('DELETE', `/v1/capsules/${id}`)
  acknowledged.created.clear()
  acknowledged.created.set(await create(`created-${turn}`), 'running')
}

for (let turn = 1; turn <= count; turn++) {
  await killAndStart(running)
  await becomeReady(turn)
  await check(turn)
  if (turn % LONG_ROUND_EVERY === 0) await checkLong(turn)
  log(`${turn}/${count}: ${Math.round(startMs.at(-1) ?? 0)} ms, ${failedStarts.length} failed, ${lost.length} lost`)
}
await call('POST', `/v1/capsules/${marked}/checkpoints/${checkpoint}/rollback?wait_sec=200`)
await look(count, 'the state of the checkpoint', async () => !(await sh(marked, 'ls /root')).includes('later'))
const after = traces()
await up.stop()

const good = laterStarts()
const result = {
  seed,
  starts: { good: good.length, failed: failedStarts, 'killed before they were ready': killedStarts },
  startMs: { p50: round(percentile(good, 50)), p95: round(percentile(good, 95)), max: round(Math.max(...good)) },
  'renames acknowledged': acknowledged.renames,
  lost,
  traces: { before, after },
}
console.log(JSON.stringify(result, undefined, 2))
if (kept === undefined) await cleanDir(dir)
process.exit(failedStarts.length + lost.length > 0 ? 1 : 0)
