import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { settleAll } from '@wrenn/base'
import { describeMachine } from '../machine.js'
import { CLI, cleanDir, endOnSignal, Platform, type PlatformOptions, scratchDir, stopPlatform } from '../platform.js'
import { buildRef, describeCheckout } from './build.js'
import { type Comparison, compare, comparisonTable } from './compare.js'
import { type Probe, probes } from './probes.js'

/** Which builds, what of them and how often. */
export interface AgainstOptions {
  /** What git knows the other build by. */
  readonly ref: string
  /** Names of probes. */
  readonly only: readonly string[]
  readonly iterations: number
  /** Of this checkout's platform; the other one has the next. */
  readonly port: number
  readonly json: boolean
  readonly log: (text: string) => void
}

/** One of the two builds. */
interface Side {
  readonly title: string
  readonly platform: Omit<PlatformOptions, 'hotPoolMax'>
}

const HOT_POOL_MAX = 4

/** What `--only` may name together with `--against`. */
export const probeNames: readonly string[] = Object.keys(probes)

/**
 * Builds another commit beside the checkout, runs a platform of each on this machine at the same time, and does the same things to
 * both in turn: what the machine does meanwhile befalls both. Prints medians, their ratio and its spread.
 */
export async function runAgainst(options: AgainstOptions): Promise<void> {
  const { ref, port, log, json } = options
  const kept = process.env.WRENN_BENCH_DIR
  const dir = kept ?? (await scratchDir('wrenn-bench-'))
  await using build = await buildRef(ref, join(dir, 'sources'), log)
  const other = { cli: build.cli, env: OTHER_NAMES }
  const ours: Side = { title: `here: ${await describeCheckout()}`, platform: { dir: join(dir, 'here'), port } }
  const theirs: Side = {
    title: `there: ${build.title}`,
    platform: { dir: join(dir, 'there'), port: port + 1, ...other },
  }
  const end = async (clean: boolean): Promise<void> => {
    await settleAll([theirs, ours].map(({ platform }) => stopPlatform(platform.dir, clean, platform.cli ?? CLI)))
  }
  endOnSignal(() => end(kept === undefined))
  const samples = new Map<string, [number[], number[]]>()
  try {
    for (const { platform } of [ours, theirs]) await mkdir(platform.dir, { recursive: true, mode: 0o711 })
    for (const hotPool of [false, true]) await runProbes([ours, theirs], hotPool, options, samples)
  } finally {
    if (kept === undefined) {
      for (const { platform } of [ours, theirs]) await cleanDir(platform.dir, platform.cli ?? CLI)
    }
  }
  const rows: Comparison[] = [...samples].map(([what, [here, there]]) => compare(what, here, there))
  const machine = describeMachine()
  const titles = [ours.title, theirs.title]
  console.log(
    json
      ? JSON.stringify({ date: new Date().toISOString(), machine, titles, rows }, undefined, 2)
      : `${JSON.stringify(machine)}\n${titles.join('\n')}\n\n${comparisonTable(rows)}`,
  )
}

/** A second platform on the machine needs names, addresses and uids that are not the first one's. */
const OTHER_NAMES = { WRENN_INSTANCE: 'wbench2', WRENN_NETWORK_CIDR: '10.205.0.0/16', WRENN_UID_BASE: '70000' }

async function runProbes(
  sides: readonly [Side, Side],
  hotPool: boolean,
  { only, iterations, log }: AgainstOptions,
  samples: Map<string, [number[], number[]]>,
): Promise<void> {
  const chosen = Object.entries(probes).filter(([name, probe]) => only.includes(name) && probe.hotPool === hotPool)
  if (chosen.length === 0) return
  const hotPoolMax = hotPool ? HOT_POOL_MAX : 0
  log(`› starting both platforms (hot pool of at most ${hotPoolMax})`)
  await using here = await Platform.start({ ...sides[0].platform, hotPoolMax })
  await using there = await Platform.start({ ...sides[1].platform, hotPoolMax })
  for (const [name, probe] of chosen) {
    log(`› ${name}`)
    const turns = Math.max(3, Math.round(iterations * probe.turnsPerIteration))
    await takeTurns(await beginBoth(probe, here, there), turns, samples)
  }
}

async function beginBoth(probe: Probe, here: Platform, there: Platform) {
  return [await probe.begin(here), await probe.begin(there)] as const
}

/** Who goes first alternates: what the first leaves to do in the background is not always the second one's burden. */
async function takeTurns(
  sides: Awaited<ReturnType<typeof beginBoth>>,
  turns: number,
  samples: Map<string, [number[], number[]]>,
): Promise<void> {
  for (let turn = 0; turn < turns; turn++) {
    for (const index of turn % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
      for (const [what, ms] of Object.entries(await sides[index]())) {
        const both = samples.get(what) ?? [[], []]
        both[index].push(ms)
        samples.set(what, both)
      }
    }
  }
}
