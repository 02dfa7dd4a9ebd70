import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { isErrno } from '@wrenn/base'
import { CLI, platformEnv } from './platform.js'

/** A `wrenn up` with all its processes, which can be killed at any moment; its guests go on. */
export class KillableUp {
  /** Of the time until it said that it was ready; rejects with its words when it ends before. */
  readonly readyMs: Promise<number>
  readonly #child: ChildProcess

  constructor(dir: string, port: number) {
    const startedAt = performance.now()
    const child = spawn(process.execPath, [CLI, 'up', '--dir', dir, '--port', String(port), '--json'], {
      env: platformEnv({ WRENN_HOT_POOL_MAX: '1' }),
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.#child = child
    this.readyMs = readiness(child).then(() => performance.now() - startedAt)
    this.readyMs.catch(() => {}) // whoever kills it before does not ask
  }

  /** Kills supervisor, services, database and tools in an order of `random`'s, and waits for none of them. */
  kill(random: () => number): void {
    const pids = [...descendants(this.#child.pid ?? 0)]
    const shuffled = pids.map((pid) => ({ pid, at: random() })).sort((a, b) => a.at - b.at)
    for (const { pid } of shuffled) kill(pid)
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    await ended
  }
}

async function readiness(child: ChildProcess): Promise<void> {
  if (child.stdout === null || child.stderr === null) throw new Error('Both are pipes.')
  const words = text(child.stderr)
  for await (const line of createInterface({ input: child.stdout })) if (line.includes('"event":"ready"')) return
  throw new Error((await words).trim().slice(-3000))
}

/** A process and all below it, without guests: these are to live on. */
function descendants(root: number): Set<number> {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const stat = readUnlessGone(`/proc/${name}/stat`)
    const isGuest = readUnlessGone(`/proc/${name}/cmdline`).includes('qemu-system-')
    if (stat !== '' && !isGuest) parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]))
  }
  const found = new Set([root])
  for (let size = 0; size < found.size; ) {
    size = found.size
    for (const [pid, parent] of parents) if (found.has(parent)) found.add(pid)
  }
  return found
}

function readUnlessGone(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return ''
    throw error
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error
  }
}
