import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Bench } from '../context.js'
import { CLI, type Platform, scratchDir } from '../platform.js'
import { type Row, row } from '../report.js'
import { round, timed } from '../stats.js'
import { type Growth, growthRows, guestAgentPid, watched } from './files.js'

const MIB = 2 ** 20
const COUNTS = [1_000, 10_000]
const FILES_PER_FOLDER = 100
const ONE_BY_ONE = 100
const MIN_TIMES = 20
const SAMPLE_MS = 50

/** `wrenn capsule cp -r` of many small files, both ways. Floor: the same files one request each. */
export async function treeRows({ platform, log }: Bench): Promise<Row[]> {
  const dir = await scratchDir('wrenn-bench-trees-')
  const { id } = await platform.create()
  const direct = await platform.direct(id)
  try {
    const agentPid = await guestAgentPid(direct)
    const floor = await oneByOne(platform, id)
    log(`small files, one request each: ${round(floor)} files/s`)
    const rows: Row[] = []
    for (const count of COUNTS) {
      const growth: Growth = { 'control plane': [], 'host agent': [], 'guest agent': [] }
      const client: number[] = []
      const copy = async (from: string, to: string): Promise<number> => {
        const { ms } = await timed(() =>
          watched(platform, direct, agentPid, growth, async () => void client.push(await copyTree(platform, from, to))),
        )
        return count / (ms / 1000)
      }
      await makeTree(join(dir, String(count)), count)
      const up = await copy(join(dir, String(count)), `${id}:/root/${count}`)
      const down = await copy(`${id}:/root/${count}`, join(dir, `${count}-back`))
      log(`cp -r of ${count} files: up ${round(up)}, down ${round(down)} files/s`)
      rows.push(
        rateRow('up', count, up, floor),
        rateRow('down', count, down, floor),
        clientRow(count, client),
        ...growthRows(growth, [`tree.${count}`, `cp -r of ${count} files`]),
      )
    }
    return rows
  } finally {
    direct.close()
    await platform.destroy(id)
    await rm(dir, { recursive: true, force: true })
  }
}

function rateRow(direction: 'up' | 'down', count: number, rate: number, floor: number): Row {
  return row({
    id: `tree.${count}.${direction}`,
    what: `cp -r of ${count} small files, ${direction}`,
    unit: 'files/s',
    samples: [rate],
    floor: [floor],
    budget: `≥ ${MIN_TIMES} × one request each`,
    keeps: (ours, single) => ours >= MIN_TIMES * single,
  })
}

function clientRow(count: number, peaksMib: readonly number[]): Row {
  return row({
    id: `tree.${count}.client`,
    what: `peak RSS of the command line in cp -r of ${count} files`,
    unit: 'MiB',
    samples: peaksMib,
  })
}

async function makeTree(root: string, count: number): Promise<void> {
  for (let at = 0; at < count; at++) {
    const folder = join(root, `d${Math.floor(at / FILES_PER_FOLDER)}`)
    if (at % FILES_PER_FOLDER === 0) await mkdir(folder, { recursive: true })
    await writeFile(join(folder, `f${at}`), `${at} `.repeat(100))
  }
}

/** Files per second. */
async function oneByOne(platform: Platform, id: string): Promise<number> {
  const { files } = await platform.wrenn.capsules.get(id)
  const { ms } = await timed(async () => {
    for (let at = 0; at < ONE_BY_ONE; at++) await files.write(`/root/single/f${at}`, `${at} `.repeat(100))
  })
  return ONE_BY_ONE / (ms / 1000)
}

/** @returns the peak memory of the command line in MiB, as seen until just before its end */
async function copyTree(platform: Platform, from: string, to: string): Promise<number> {
  const child = spawn(process.execPath, [CLI, 'capsule', 'cp', '-r', from, to], {
    env: { ...process.env, ...platform.clientEnv },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  let peak = 0
  const timer = setInterval(() => {
    readFile(`/proc/${child.pid}/status`, 'utf8').then(
      (status) => {
        peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024)
      },
      () => {}, // it has ended
    )
  }, SAMPLE_MS)
  const [code] = await once(child, 'exit')
  clearInterval(timer)
  if (code !== 0) throw new Error(`wrenn capsule cp ended with ${code}.`)
  return peak / MIB
}
