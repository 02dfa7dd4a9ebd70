import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Bench } from '../context.js'
import { countBytes } from '../guest.js'
import { CLI, type Platform } from '../platform.js'
import { type Row, row } from '../report.js'
import { timed } from '../stats.js'

const BUDGET_MS = 5
const WARM_UP = 10
const MIB = 2 ** 20

/** Runs a command through the host agent alone; gives how many bytes it wrote. */
async function hostExec(platform: Platform, capsuleId: string, cmd: string, args: readonly string[]): Promise<number> {
  let bytes = 0
  const start = { process: { cmd, args: [...args] }, stdin: false, withOffsets: true }
  for await (const { event } of platform.host.startProcess({ capsuleId, user: 'root', start })) {
    if (event?.event.case === 'data') bytes += event.event.value.output.value?.length ?? 0
  }
  return bytes
}

/** A warm `true` through each depth of the stack, turn by turn. */
export async function execRows({ platform, iterations, log }: Bench): Promise<Row[]> {
  const { id } = await platform.create()
  const direct = await platform.direct(id)
  const ways = {
    direct: () => direct.exec('/bin/true'),
    host: () => hostExec(platform, id, '/bin/true', []),
    rest: () => platform.exec(id, '/bin/true'),
  }
  const samples = { direct: [] as number[], host: [] as number[], rest: [] as number[] }
  const turns = iterations * 3
  for (let turn = -WARM_UP; turn < turns; turn++) {
    for (const way of ['direct', 'host', 'rest'] as const) {
      const { ms } = await timed<unknown>(ways[way])
      if (turn >= 0) samples[way].push(ms)
    }
  }
  log(`exec: ${turns} turns`)
  direct.close()
  await platform.destroy(id)
  const floor = samples.direct
  return [
    row({
      id: 'exec.host-agent',
      what: 'exec true, through the host agent only',
      unit: 'ms',
      samples: samples.host,
      floor,
    }),
    row({
      id: 'exec.rest',
      what: 'exec true, warm, through REST',
      unit: 'ms',
      samples: samples.rest,
      floor,
      budget: `≤ direct + ${BUDGET_MS} ms`,
      keeps: (ours, raw) => ours <= raw + BUDGET_MS,
    }),
  ]
}

/** A long output through each depth of the stack, for the rate of each hop. */
export async function stdoutRows({ platform, transferMib, log }: Bench): Promise<Row[]> {
  const wanted = Math.min(200, transferMib) * MIB
  const { id } = await platform.create()
  const direct = await platform.direct(id)
  const args = ['-c', String(wanted), '/dev/zero']
  const ways: Record<string, () => Promise<number>> = {
    'guest agent directly': () => direct.exec('/usr/bin/head', args),
    'host agent': () => hostExec(platform, id, '/usr/bin/head', args),
    'host agent and control plane (WebSocket)': () => streamExec(platform, id, ['/usr/bin/head', ...args]),
    'the whole stack and `wrenn capsule exec`': () => cliExec(platform, id, ['/usr/bin/head', ...args]),
  }
  const rates = new Map<string, number>()
  for (const [name, run] of Object.entries(ways)) {
    const { ms, value } = await timed(run)
    if (value !== wanted) throw new Error(`${name} gave ${value} bytes of output instead of ${wanted}.`)
    rates.set(name, wanted / MIB / (ms / 1000))
    log(`stdout through ${name}: ${Math.round(rates.get(name) ?? 0)} MiB/s`)
  }
  direct.close()
  await platform.destroy(id)
  const floor = [rates.get('guest agent directly') ?? Number.NaN]
  return [...rates].map(([name, rate]) =>
    row({
      id: `stdout.${name.replace(/[^a-z]+/gi, '-').toLowerCase()}`,
      what: `${wanted / MIB} MiB of stdout through ${name}`,
      unit: 'MiB/s',
      samples: [rate],
      floor,
    }),
  )
}

/** Runs a command through REST's WebSocket; gives how many bytes it wrote. */
export async function streamExec(
  platform: Platform,
  id: string,
  command: readonly [string, ...string[]],
): Promise<number> {
  const capsule = await platform.wrenn.capsules.get(id)
  let bytes = 0
  for await (const event of await capsule.stream(command, { user: 'root' })) {
    if (event.type === 'stdout') bytes += event.data.length
  }
  return bytes
}

async function cliExec(platform: Platform, id: string, command: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [CLI, 'capsule', 'exec', id, '--', ...command], {
    env: { ...process.env, ...platform.clientEnv },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  const bytes = await countBytes(child.stdout)
  const [code] = await exited
  if (code !== 0) throw new Error(`wrenn capsule exec ended with ${code}.`)
  return bytes
}
