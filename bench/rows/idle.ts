import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Bench } from '../context.js'
import { bytesWritten, processUse } from '../machine.js'
import type { Capsule, Platform } from '../platform.js'
import { type Row, row } from '../report.js'

const MIB = 2 ** 20
/** More than one round of what the host agent does in the background. */
const WINDOW_MS = 90_000
/** So small that fifty fit. */
const SHAPE = { memory_mb: 256 }
/** What a create dirtied is written back within the kernel's 30 s; only then is a capsule idle. */
const SETTLE_MS = 35_000
const BASE_MIB = 80
const PER_CAPSULE_MIB = 1
const MAX_CPU_PERCENT = 1

interface IdleUse {
  readonly capsules: number
  readonly rssMib: number
  readonly cpuPercent: number
  readonly capsuleCpuPercent: number
  readonly writtenMib: number
}

/** What a platform costs that has nothing to do: without capsules, with 10 and with 50. */
export async function idleRows({ platform, log }: Bench): Promise<Row[]> {
  const capsules: Capsule[] = []
  const uses: IdleUse[] = []
  for (const count of [0, 10, 50]) {
    while (capsules.length < count) capsules.push(await platform.create(SHAPE))
    await delay(SETTLE_MS)
    uses.push(await observe(platform, capsules))
    log(`idle with ${count} capsules: ${JSON.stringify(uses.at(-1))}`)
  }
  for (const { id } of capsules) await platform.destroy(id)
  const [none, ten, fifty] = uses
  if (none === undefined || ten === undefined || fifty === undefined) throw new Error('three observations were made')
  const budget = (use: IdleUse): number => BASE_MIB + PER_CAPSULE_MIB * use.capsules
  const perCapsule = (use: IdleUse): number => (use.writtenMib - none.writtenMib) / use.capsules
  return [
    ...uses.map((use) =>
      row({
        id: `idle.host-agent.rss.${use.capsules}`,
        what: `host agent's RSS with ${use.capsules} idle capsules`,
        unit: 'MiB',
        samples: [use.rssMib],
        budget: `≤ ${budget(use)} MiB`,
        keeps: (mib) => mib <= budget(use),
      }),
    ),
    row({
      id: 'idle.host-agent.cpu.50',
      what: "host agent's CPU with 50 idle capsules",
      unit: '% CPU',
      samples: [fifty.cpuPercent],
      budget: `≤ ${MAX_CPU_PERCENT} %`,
      keeps: (percent) => percent <= MAX_CPU_PERCENT,
      note: `${none.cpuPercent.toFixed(2)} % without capsules, ${ten.cpuPercent.toFixed(2)} % with 10`,
    }),
    row({
      id: 'idle.capsule.cpu',
      what: 'CPU of one idle capsule (QEMU)',
      unit: '% CPU',
      samples: [ten.capsuleCpuPercent],
      note: `${fifty.capsuleCpuPercent.toFixed(2)} % with 50`,
    }),
    row({
      id: 'idle.capsule.write-back',
      what: `written to the pool per idle capsule in ${WINDOW_MS / 1000} s`,
      unit: 'MiB',
      samples: [perCapsule(ten)],
      note: `10 capsules; the pool itself ${none.writtenMib.toFixed(1)} MiB without any; with 50 capsules ${perCapsule(fifty).toFixed(1)} MiB each`,
    }),
  ]
}

async function observe(platform: Platform, capsules: readonly Capsule[]): Promise<IdleUse> {
  const pool = join(platform.dir, 'pool')
  const pids = await Promise.all(capsules.map(async ({ id }) => (await platform.journal(id)).resources.vm.pid))
  const read = async () => ({
    agent: await processUse(platform.pids.hostAgent),
    guests: (await Promise.all(pids.map(processUse))).reduce((sum, { cpuMs }) => sum + cpuMs, 0),
    written: await bytesWritten(pool),
  })
  const before = await read()
  await delay(WINDOW_MS)
  const after = await read()
  const percent = (ms: number): number => (100 * ms) / WINDOW_MS
  return {
    capsules: capsules.length,
    rssMib: after.agent.rssBytes / MIB,
    cpuPercent: percent(after.agent.cpuMs - before.agent.cpuMs),
    capsuleCpuPercent: capsules.length === 0 ? 0 : percent(after.guests - before.guests) / capsules.length,
    writtenMib: (after.written - before.written) / MIB,
  }
}
