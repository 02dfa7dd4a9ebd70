import { parseArgs } from 'node:util'
import { probeNames, runAgainst } from './against/run.js'
import type { Bench } from './context.js'
import { describeMachine } from './machine.js'
import { cleanDir, endOnSignal, Platform, scratchDir, stopPlatform } from './platform.js'
import { type Row, table } from './report.js'
import { execRows, stdoutRows } from './rows/exec.js'
import { fileRows } from './rows/files.js'
import { idleRows } from './rows/idle.js'
import { hotRows, restoreRows } from './rows/lifecycle.js'
import { forkRows, sleepRows } from './rows/sleep.js'
import { treeRows } from './rows/trees.js'

const usage = `npm run bench [-- options]
  --only NAMES      comma-separated: restore, sleep, fork, exec, stdout, files, trees,
                    idle, hot (default: all)
  --iterations N    creates per path; commands and transfers scale with it (default 20)
  --transfer-mib N  size of a file transfer (default 256)
  --port N          port of the platform under test (default 8206)
  --json            machine-readable result on stdout
  --strict          exit with 1 when a budget is missed
  --against REF     builds that commit beside this checkout and compares both, turn by turn;
                    --only then knows: ${probeNames.join(', ')}
WRENN_BENCH_DIR keeps the platform's directory, with its images, for the next run.`

type Group = (bench: Bench) => Promise<Row[]>

/** Groups by the platform they need. Waiting guests would serve, and take the CPU of, creates that shall restore. */
const withoutHotPool: Record<string, Group> = {
  // First, because a host agent that has carried much keeps some of the memory it needed for that.
  idle: idleRows,
  restore: restoreRows,
  sleep: sleepRows,
  fork: forkRows,
  exec: execRows,
  stdout: stdoutRows,
  files: fileRows,
  trees: treeRows,
}
const withHotPool: Record<string, Group> = { hot: hotRows }

function options() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      iterations: { type: 'string', default: '20' },
      'transfer-mib': { type: 'string', default: '256' },
      port: { type: 'string', default: '8206' },
      against: { type: 'string' },
      json: { type: 'boolean', default: false },
      strict: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const groups = [...Object.keys(withoutHotPool), ...Object.keys(withHotPool)]
  const all = values.against === undefined ? groups : probeNames
  const only = values.only?.split(',') ?? all
  const unknown = only.filter((name) => !all.includes(name))
  if (unknown.length > 0) throw new Error(`--only knows ${all.join(', ')}, not ${unknown.join(', ')}.`)
  const number = (text: string, name: string): number => {
    if (!/^[1-9]\d*$/.test(text)) throw new Error(`--${name} must be a positive whole number.`)
    return Number(text)
  }
  return {
    ...values,
    only,
    iterations: number(values.iterations, 'iterations'),
    transferMib: number(values['transfer-mib'], 'transfer-mib'),
    port: number(values.port, 'port'),
  }
}

type Options = ReturnType<typeof options>

function log(text: string): void {
  process.stderr.write(`${text}\n`)
}

async function measure(
  groups: Record<string, Group>,
  hotPoolMax: number,
  dir: string,
  wanted: Options,
): Promise<Row[]> {
  const chosen = Object.entries(groups).filter(([name]) => wanted.only.includes(name))
  if (chosen.length === 0) return []
  log(`› starting a platform in ${dir} (hot pool of at most ${hotPoolMax})`)
  await using platform = await Platform.start({ dir, port: wanted.port, hotPoolMax })
  const rows: Row[] = []
  for (const [name, group] of chosen) {
    log(`› ${name}`)
    rows.push(...(await group({ platform, iterations: wanted.iterations, transferMib: wanted.transferMib, log })))
  }
  return rows
}

async function run(wanted: Options): Promise<boolean> {
  const machine = describeMachine()
  const kept = process.env.WRENN_BENCH_DIR
  const dir = kept ?? (await scratchDir('wrenn-bench-'))
  const rows: Row[] = []
  endOnSignal(() => stopPlatform(dir, kept === undefined))
  try {
    rows.push(...(await measure(withoutHotPool, 0, dir, wanted)))
    rows.push(...(await measure(withHotPool, 4, dir, wanted)))
  } finally {
    if (kept === undefined) await cleanDir(dir)
  }
  const result = { date: new Date().toISOString(), machine, loadAfter: describeMachine().load, rows }
  console.log(wanted.json ? JSON.stringify(result, undefined, 2) : `${JSON.stringify(machine)}\n\n${table(rows)}`)
  return rows.every(({ verdict }) => verdict !== 'missed')
}

const wanted = options()
if (wanted.help) console.log(usage)
else if (wanted.against !== undefined) {
  await runAgainst({ ...wanted, ref: wanted.against, log })
  process.exit(0)
} else {
  const kept = await run(wanted)
  process.exit(kept || !wanted.strict ? 0 : 1)
}
