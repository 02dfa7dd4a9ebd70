// node --conditions=wrenn-source --import tsx bench/soak-pause.ts [--count 200] [--kills 50] [--port 8206]
// Pauses and resumes one capsule again and again while it is busy with memory and disk, and looks each time whether all that
// it held is still there: a nonce in a process's memory, one in tmpfs, a counter that must neither jump nor go back, a
// terminal that stays open, a file of 300 MB. With --kills the host agent is killed at a random moment of each further cycle.
import { createHash, randomBytes, randomInt } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { errorText } from '@wrenn/base'
import type { Capsule, PtyHandle } from '@wrenn/sdk'
import type { Platform } from './platform.js'
import { log, withPlatform } from './soak.js'
import { percentile, round } from './stats.js'

const FILE_BYTES = 300_000_000
const MEMORY_MIB = 1024
/** A counter that stood still while its capsule did goes on by what fits into the time between two looks, not by more. */
const COUNT_PERIOD_S = 0.05

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '200' },
    kills: { type: 'string', default: '50' },
    port: { type: 'string', default: '8206' },
  },
})

/** Keeps a nonce and a counter in its memory, answers on a socket; writes memory and disk without end. */
const KEEPER = `
import hashlib, os, random, socket, threading, time
nonce = os.urandom(1 << 20)
open('/dev/shm/nonce', 'wb').write(nonce)
count = 0
def count_on():
    global count
    while True:
        count += 1
        time.sleep(${COUNT_PERIOD_S})
def stress():
    block = bytearray(64 << 20)
    while True:
        at = random.randrange(0, len(block) - (1 << 20))
        block[at:at + (1 << 20)] = os.urandom(1 << 20)
        with open('/root/stress', 'r+b' if os.path.exists('/root/stress') else 'w+b') as f:
            f.seek(random.randrange(0, 64 << 20))
            f.write(os.urandom(1 << 16))
        time.sleep(0.02)
threading.Thread(target=count_on, daemon=True).start()
threading.Thread(target=stress, daemon=True).start()
server = socket.socket(socket.AF_UNIX)
server.bind('/run/keeper')
server.listen()
while True:
    peer, _ = server.accept()
    shm = open('/dev/shm/nonce', 'rb').read()
    peer.sendall(('%s %s %d' % (hashlib.sha256(nonce).hexdigest(), hashlib.sha256(shm).hexdigest(), count)).encode())
    peer.close()
`
const ASK = `import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/keeper'); print(s.recv(999).decode())`

interface Seen {
  readonly nonce: string
  readonly shm: string
  readonly count: number
}

async function look(capsule: Capsule): Promise<Seen> {
  const { stdout, stderr, exitCode } = await capsule.exec(['python3', '-c', ASK], { user: 'root' })
  if (exitCode !== 0) throw new Error(`The keeper does not answer: ${stderr}`)
  const [nonce = '', shm = '', count = ''] = stdout.trim().split(' ')
  return { nonce, shm, count: Number(count) }
}

async function fileHash(capsule: Capsule): Promise<string> {
  const { stdout } = await capsule.exec('sha256sum /root/big', { user: 'root', timeoutMs: 120_000 })
  return stdout.split(' ')[0] ?? ''
}

/** Follows an open terminal for the whole soak: what is typed must be answered, by the same shell. */
class Typist {
  readonly #pty: PtyHandle
  #text = ''
  #ended: string | undefined

  constructor(pty: PtyHandle) {
    this.#pty = pty
    void this.#read()
  }

  async #read(): Promise<void> {
    try {
      for await (const event of this.#pty) {
        if (event.type === 'lost') throw new Error('output was lost')
        if (event.type === 'output') this.#text += Buffer.from(event.data).toString()
      }
      this.#ended = 'it ended'
    } catch (error) {
      this.#ended = errorText(error)
    }
  }

  async type(turn: number): Promise<void> {
    await this.#pty.write(`n=$((n + 1)); echo "turn-$n-${turn}-"\n`)
    const deadline = performance.now() + 60_000
    while (!this.#text.includes(`turn-${turn + 1}-${turn}-`)) {
      if (this.#ended !== undefined) throw new Error(`The terminal is gone: ${this.#ended}`)
      if (performance.now() > deadline) throw new Error(`The terminal does not answer: …${this.#text.slice(-200)}`)
      await delay(20)
    }
  }
}

async function prepare(platform: Platform): Promise<{ capsule: Capsule; hash: string; typist: Typist }> {
  const capsule = await platform.wrenn.capsules.create({ memoryMib: MEMORY_MIB, name: 'soak-pause' })
  const content = randomBytes(FILE_BYTES)
  await capsule.files.write('/root/big', content, { user: 'root' })
  await capsule.files.write('/root/keeper.py', new TextEncoder().encode(KEEPER), { user: 'root' })
  await capsule.start('exec python3 /root/keeper.py', { user: 'root' })
  await capsule.exec('until [ -S /run/keeper ]; do sleep 0.1; done', { user: 'root' })
  const pty = await capsule.pty({ command: ['/bin/sh'], user: 'root' })
  return { capsule, hash: createHash('sha256').update(content).digest('hex'), typist: new Typist(pty) }
}

/** Kills the host agent some time into `work`; its supervisor starts it again. */
async function killDuring(platform: Platform, work: () => Promise<void>): Promise<void> {
  const pid = await platform.hostAgentPid()
  const running = work()
  running.catch(() => {}) // awaited below
  await delay(randomInt(0, 400))
  process.kill(pid, 'SIGKILL')
  await running
}

const failed = await withPlatform(Number(values.port), async (platform) => {
  const failures: string[] = []
  const times = { pause: [] as number[], resume: [] as number[], firstExec: [] as number[] }
  const { capsule, hash, typist } = await prepare(platform)
  const first = await look(capsule)
  let last = first.count

  const cycle = async (): Promise<void> => {
    const start = performance.now()
    await capsule.pause()
    const paused = performance.now()
    await capsule.resume()
    const resumed = performance.now()
    times.pause.push(paused - start)
    times.resume.push(resumed - paused)
  }
  const check = async (turn: number): Promise<void> => {
    const start = performance.now()
    const seen = await look(capsule)
    times.firstExec.push(performance.now() - start)
    if (seen.nonce !== first.nonce || seen.shm !== first.nonce) failures.push(`turn ${turn}: a nonce changed`)
    if (!(seen.count > last)) failures.push(`turn ${turn}: the counter went from ${last} to ${seen.count}`)
    last = seen.count
    await typist.type(turn)
    if (turn % 20 === 19 && (await fileHash(capsule)) !== hash) failures.push(`turn ${turn}: the file changed`)
  }

  const count = Number(values.count)
  const kills = Number(values.kills)
  for (let turn = 0; turn < count + kills; turn++) {
    try {
      if (turn < count) await cycle()
      else {
        await killDuring(platform, async () => {
          await retried(() => capsule.pause())
          await retried(() => capsule.resume())
        })
      }
      await check(turn)
    } catch (error) {
      failures.push(`turn ${turn}: ${errorText(error)}`)
      if (failures.length > 20) break
    }
    if (turn % 10 === 9) log(`${turn + 1}/${count + kills}, ${failures.length} failures, count ${last}`)
  }
  if ((await fileHash(capsule)) !== hash) failures.push('the file changed')
  await capsule.destroy()
  const summary = (samples: readonly number[]) => ({
    p50: round(percentile(samples, 50)),
    p95: round(percentile(samples, 95)),
    max: round(Math.max(...samples)),
  })
  console.log(
    JSON.stringify(
      {
        count,
        kills,
        failures,
        pauseMs: summary(times.pause),
        resumeMs: summary(times.resume),
        firstExecMs: summary(times.firstExec),
      },
      undefined,
      2,
    ),
  )
  return failures.length > 0
})
process.exit(failed ? 1 : 0)

/** A call that the killed host agent could not answer is made again, as a client would; what was done stays done. */
async function retried(call: () => Promise<unknown>): Promise<void> {
  const deadline = performance.now() + 90_000
  for (;;) {
    try {
      await call()
      return
    } catch (error) {
      const text = errorText(error)
      if (/is paused|is running/.test(text)) return
      if (performance.now() > deadline) throw error
      await delay(200)
    }
  }
}
