import { execFile } from 'node:child_process'
import { statfs } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { waitFor } from '@wrenn/base'
import type { Bench } from '../context.js'
import { FloorQemu } from '../floor-qemu.js'
import { SHAPE } from '../hot-guests.js'
import { type Row, row } from '../report.js'
import { medianSteps, round, timed } from '../stats.js'

const TOUCHED_MIB = [256, 1024, 4096, 8192]
/** For the guest's own system and its kernel's page tables, so that touching does not end in its OOM killer. */
const systemMib = (touchedMib: number): number => 256 + touchedMib / 16
/** What the platform keeps free before it pauses capsules, and what a guest writes beside its memory. */
const POOL_RESERVE_MIB = 3072
const TURNS = 5
/** Each waits until gigabytes are written out and read for their checksum. */
const DURABLE_TURNS = 3
const COPIES = 10
const FORK_MIB = 1024
const TOUCH_TIMEOUT_MS = 600_000
const DURABLE_TIMEOUT_MS = 600_000

interface Slept {
  readonly state: string
  readonly lifecycle_timings?: readonly { readonly step: string; readonly ms: number }[]
}

/** Pause and resume by the memory a guest has touched, beside raw QEMU that saves and restores 512 MiB. */
export async function sleepRows({ platform, log }: Bench): Promise<Row[]> {
  const floors = await floorOf(platform)
  const rows: Row[] = []
  for (const touchedMib of TOUCHED_MIB) {
    const memoryMib = touchedMib + systemMib(touchedMib)
    const lacking = await whatLacks(platform.dir, memoryMib)
    if (lacking !== undefined) {
      log(`sleep ${touchedMib} MiB: not measured, ${lacking}`)
      continue
    }
    const { id } = await platform.create({ ...SHAPE, memory_mb: memoryMib })
    await touch(platform, id, touchedMib)
    const pauses: number[] = []
    const resumes: number[] = []
    const steps: { pause: Slept[]; resume: Slept[] } = { pause: [], resume: [] }
    for (let turn = 0; turn < TURNS; turn++) {
      const paused = await timed(() => platform.call<Slept>('POST', `/v1/capsules/${id}/pause`))
      const resumed = await timed(() => platform.call<Slept>('POST', `/v1/capsules/${id}/resume`))
      pauses.push(paused.ms)
      resumes.push(resumed.ms)
      steps.pause.push(paused.value)
      steps.resume.push(resumed.value)
      await platform.exec(id, '/bin/true')
    }
    const durable = await resumeDurable(platform, id)
    await platform.destroy(id)
    log(
      `sleep ${touchedMib} MiB: pause ${pauses.map(Math.round)}, resume ${resumes.map(Math.round)}, durable ${durable.map(({ ms }) => Math.round(ms))} ms`,
    )
    rows.push(
      row({
        id: `pause.${touchedMib}`,
        what: `pause, ${touchedMib} MiB touched`,
        unit: 'ms',
        samples: pauses,
        floor: floors.map(({ saveMs }) => saveMs),
        budget: '≤ 1.5 × raw save',
        keeps: (ours, raw) => ours <= 1.5 * raw,
        note: `steps of the host agent, p50 ms: ${medianSteps(steps.pause.map((slept) => slept.lifecycle_timings ?? []))}`,
      }),
      row({
        id: `resume.${touchedMib}`,
        what: `resume right after the pause, ${touchedMib} MiB touched`,
        unit: 'ms',
        samples: resumes,
        floor: floors.map(({ runningMs }) => runningMs),
        budget: '≤ 1.5 × raw restore',
        keeps: (ours, raw) => ours <= 1.5 * raw,
        note: `steps of the host agent, p50 ms: ${medianSteps(steps.resume.map((slept) => slept.lifecycle_timings ?? []))}`,
      }),
      row({
        id: `resume.durable.${touchedMib}`,
        what: `resume once the state is durable, ${touchedMib} MiB touched`,
        unit: 'ms',
        samples: durable.map(({ ms }) => ms),
        floor: floors.map(({ runningMs }) => runningMs),
        budget: '≤ 1.5 × raw restore',
        keeps: (ours, raw) => ours <= 1.5 * raw,
        note: `steps of the host agent, p50 ms: ${medianSteps(durable.map(({ value }) => value.lifecycle_timings ?? []))}`,
      }),
    )
  }
  return rows
}

/** As after a longer sleep: on clones of files that are on the disk. */
async function resumeDurable(platform: Bench['platform'], id: string): Promise<{ value: Slept; ms: number }[]> {
  const resumed: { value: Slept; ms: number }[] = []
  for (let turn = 0; turn < DURABLE_TURNS; turn++) {
    await platform.call('POST', `/v1/capsules/${id}/pause`)
    const isDurable = async () => {
      const { durable } = await platform.call<{ durable?: boolean }>('GET', `/v1/capsules/${id}`)
      return durable || undefined
    }
    await waitFor(isDurable, { timeoutMs: DURABLE_TIMEOUT_MS, intervalMs: 200, what: 'the state to be durable' })
    resumed.push(await timed(() => platform.call<Slept>('POST', `/v1/capsules/${id}/resume`)))
    await platform.exec(id, '/bin/true')
  }
  return resumed
}

/** Ten running copies of a guest that has touched 1 GiB. */
export async function forkRows({ platform, log }: Bench): Promise<Row[]> {
  const floors = await floorOf(platform)
  const { id } = await platform.create({ ...SHAPE, memory_mb: FORK_MIB + systemMib(FORK_MIB) })
  await touch(platform, id, FORK_MIB)
  const before = await usedBytes(platform.dir)
  const forked = await timed(() =>
    platform.call<{ capsules: { id: string }[]; pause_window_ms: number; timings: { step: string; ms: number }[] }>(
      'POST',
      `/v1/capsules/${id}/fork?wait_sec=120`,
      { count: COPIES },
    ),
  )
  const grown = (await usedBytes(platform.dir)) - before
  const { capsules, pause_window_ms: windowMs, timings } = forked.value
  for (const copy of capsules) await platform.exec(copy.id, '/bin/true')
  for (const copy of [{ id }, ...capsules]) await platform.destroy(copy.id)
  log(`fork: window ${round(windowMs)} ms, ${capsules.length} copies in ${round(forked.ms)} ms`)
  const perCopy = `${round(grown / COPIES / 2 ** 20)} MiB of the pool per copy`
  return [
    row({
      id: 'fork.window',
      what: `fork, ${FORK_MIB} MiB touched: the source stands still`,
      unit: 'ms',
      samples: [windowMs],
      floor: floors.map(({ saveMs }) => saveMs),
      budget: '≤ 2 × raw save',
      keeps: (ours, raw) => ours <= 2 * raw,
    }),
    row({
      id: 'fork.each',
      what: `fork into ${COPIES}: per copy, until it runs under its own name`,
      unit: 'ms',
      samples: [forked.ms / COPIES],
      floor: floors.map(({ runningMs }) => runningMs),
      budget: '≤ 2 × raw restore',
      keeps: (ours, raw) => ours <= 2 * raw,
      note: `whole ${round(forked.ms)} ms; ${perCopy}; steps, ms: ${medianSteps([timings])}`,
    }),
  ]
}

/** Why a guest with so much memory, all of it touched, cannot be measured here. */
async function whatLacks(dir: string, memoryMib: number): Promise<string | undefined> {
  const mib = (bytes: number): number => Math.floor(bytes / 2 ** 20)
  const memory = mib(totalmem() * 0.7)
  if (memoryMib > memory)
    return `a guest of ${memoryMib} MiB needs more than 70 % of this machine's memory (${memory} MiB)`
  const [pool, disk] = [mib(await freeBytes(join(dir, 'pool'))), mib(await freeBytes(dir))]
  const needed = memoryMib + POOL_RESERVE_MIB
  if (needed <= Math.min(pool, disk)) return undefined
  const hint = pool < disk ? 'raise WRENN_POOL_SIZE_MIB for a new WRENN_BENCH_DIR' : 'free some disk'
  return `its memory file and a reserve take ${needed} MiB and the pool has ${pool}, its disk ${disk}: ${hint}`
}

async function freeBytes(dir: string): Promise<number> {
  const { bsize, bavail } = await statfs(dir)
  return bavail * bsize
}

async function floorOf(platform: Bench['platform']): Promise<{ saveMs: number; runningMs: number }[]> {
  const first = await platform.create(SHAPE)
  await using floor = await FloorQemu.like(platform, first.id)
  await platform.destroy(first.id)
  const runs: { saveMs: number; runningMs: number }[] = []
  for (let turn = 0; turn < TURNS; turn++) {
    const restored = await floor.restore()
    try {
      await restored.guest.waitHealthy()
      runs.push({ runningMs: restored.runningMs, saveMs: await restored.save() })
    } finally {
      await restored.end()
    }
  }
  return runs
}

/** A process in the guest fills memory with what no two pages share, and keeps it. */
async function touch(platform: Bench['platform'], id: string, mib: number): Promise<void> {
  const script = `
import os, sys, time
kept = [os.urandom(4096) * 256 for _ in range(${mib})]
open('/run/touched', 'w').close()
time.sleep(1 << 30)`
  await platform.call('POST', `/v1/capsules/${id}/exec`, {
    cmd: 'python3',
    args: ['-c', script],
    user: 'root',
    background: true,
    tag: 'touch',
  })
  const touched = async () => {
    const answer = await platform.call<{ exit_code: number }>('POST', `/v1/capsules/${id}/exec`, {
      cmd: 'test',
      args: ['-e', '/run/touched'],
      user: 'root',
    })
    return answer.exit_code === 0 ? true : undefined
  }
  await waitFor(touched, { timeoutMs: TOUCH_TIMEOUT_MS, intervalMs: 500, what: `the guest to touch ${mib} MiB` })
}

/** What was written before counts only once it is on the disk. */
async function usedBytes(dir: string): Promise<number> {
  await promisify(execFile)('sync', ['-f', join(dir, 'pool')])
  const { bsize, blocks, bfree } = await statfs(join(dir, 'pool'))
  return (blocks - bfree) * bsize
}
