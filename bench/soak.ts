import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { cleanDir, endOnSignal, Platform, scratchDir, stopPlatform } from './platform.js'

export interface SoakOptions {
  readonly count: number
  readonly parallel: number
  readonly port: number
}

export function soakOptions(defaults: SoakOptions): SoakOptions {
  const { values } = parseArgs({
    options: { count: { type: 'string' }, parallel: { type: 'string' }, port: { type: 'string' } },
  })
  const number = (text: string | undefined, fallback: number): number => (text === undefined ? fallback : Number(text))
  return {
    count: number(values.count, defaults.count),
    parallel: number(values.parallel, defaults.parallel),
    port: number(values.port, defaults.port),
  }
}

export function log(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** Starts a platform in `WRENN_BENCH_DIR`, or in a directory that goes with it, and stops it after `work`. */
export async function withPlatform<T>(
  port: number,
  work: (platform: Platform) => Promise<T>,
  env: Readonly<Record<string, string>> = {},
): Promise<T> {
  const kept = process.env.WRENN_BENCH_DIR
  const dir = kept ?? (await scratchDir('wrenn-soak-'))
  endOnSignal(() => stopPlatform(dir, kept === undefined))
  try {
    await using platform = await Platform.start({ dir, port, hotPoolMax: 4, env })
    return await work(platform)
  } finally {
    if (kept === undefined) await cleanDir(dir)
  }
}

/** Runs `count` turns, at most `parallel` at a time. */
export async function inTurns(count: number, parallel: number, turn: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) await turn(next++)
  }
  await Promise.all(Array.from({ length: parallel }, worker))
}

/** Everything on the machine that a capsule leaves while it exists, by kind. */
export async function leftovers(platform: Platform, ids: readonly string[]): Promise<Record<string, string[]>> {
  const mine = (names: readonly string[]): string[] => names.filter((name) => ids.some((id) => name.includes(id)))
  const listed = await platform.call<readonly { id: string }[]>('GET', '/v1/capsules')
  const links = await readdir('/sys/class/net')
  const labels = await Promise.all(
    links.map((link) => readFile(`/sys/class/net/${link}/ifalias`, 'utf8').catch(() => '')),
  )
  const { stdout: processes } = await promisify(execFile)('ps', ['-eo', 'pid,args'], { maxBuffer: 2 ** 24 })
  const { capsules } = await platform.host.listCapsules({})
  const kinds: Record<string, string[]> = {
    rows: mine(listed.map(({ id }) => id)),
    'capsules of the host': mine(capsules.map(({ capsuleId }) => capsuleId)),
    journal: mine(await readdir(join(platform.dir, 'journal'))),
    files: mine(await readdir(join(platform.dir, 'pool/capsules'))),
    'run directories': mine(await readdir(join(platform.dir, 'run/vm'))),
    slots: mine(labels),
    processes: mine(processes.split('\n')),
    mounts: mine((await readFile('/proc/self/mountinfo', 'utf8')).split('\n')),
  }
  return Object.fromEntries(Object.entries(kinds).filter(([, found]) => found.length > 0))
}

/**
 * QEMU processes, run directories and guest files that belong to nobody: a guest from the hot pool keeps its own name after
 * it became a capsule, so that the ids of capsules alone do not find it.
 */
export async function strays(platform: Platform): Promise<string[]> {
  const { pools } = await platform.host.getHost({})
  const waiting = pools.reduce((sum, { hot }) => sum + hot, 0)
  const runDirs = await readdir(join(platform.dir, 'run/vm'))
  const files = (await readdir(join(platform.dir, 'pool/capsules'))).filter((name) => !name.startsWith('.'))
  return [
    ...(runDirs.length > waiting
      ? [`${runDirs.length} run directories for ${waiting} waiting guests: ${runDirs}`]
      : []),
    ...(files.length > waiting ? [`${files.length} sets of files for ${waiting} waiting guests: ${files}`] : []),
  ]
}
