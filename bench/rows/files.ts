import { writeFile } from 'node:fs/promises'
import { createServer, request } from 'node:http'
import type { Readable } from 'node:stream'
import type { Bench } from '../context.js'
import { byteSource, countBytes, type DirectGuest } from '../guest.js'
import { processUse } from '../machine.js'
import type { Platform } from '../platform.js'
import { type Row, row } from '../report.js'
import { median, round, timed } from '../stats.js'

const MIB = 2 ** 20
const MIN_SHARE = 0.7
const MAX_GROWTH_MIB = 32
const PATH = '/tmp/bench.bin'

/** One file up and down through each depth of the stack. */
export async function fileRows(bench: Bench): Promise<Row[]> {
  const { platform, transferMib, iterations, log } = bench
  const { id } = await platform.create()
  const direct = await platform.direct(id)
  const bytes = transferMib * MIB
  const growth: Growth = { 'control plane': [], 'host agent': [], 'guest agent': [] }
  const agentPid = await guestAgentPid(direct)
  const ways: Record<string, Record<'up' | 'down', () => Promise<unknown>>> = {
    direct: { up: () => direct.writeFile(PATH, byteSource(bytes)), down: () => direct.readFile(PATH) },
    'host agent': { up: () => hostWrite(platform, id, bytes), down: () => hostRead(platform, id) },
    REST: {
      up: () => watched(platform, direct, agentPid, growth, () => restWrite(platform, id, bytes)),
      down: () => watched(platform, direct, agentPid, growth, () => platform.download(id, PATH)),
    },
  }
  const rates = { up: new Map<string, number[]>(), down: new Map<string, number[]>() }
  const turns = Math.max(1, Math.round(iterations / 10))
  for (let turn = 0; turn < turns; turn++) {
    for (const [name, way] of Object.entries(ways)) {
      for (const direction of ['up', 'down'] as const) {
        const { ms } = await timed(way[direction])
        const rate = transferMib / (ms / 1000)
        rates[direction].set(name, [...(rates[direction].get(name) ?? []), rate])
        log(`file ${direction} ${transferMib} MiB through ${name}: ${round(rate)} MiB/s`)
      }
    }
  }
  direct.close()
  await platform.destroy(id)
  return [
    ...(['up', 'down'] as const).flatMap((direction) => rateRows(direction, transferMib, rates[direction])),
    row({
      id: 'file.plain-node-stream',
      what: `${transferMib} MiB through a plain Node HTTP stream on loopback`,
      unit: 'MiB/s',
      samples: [transferMib / ((await plainStreamMs(bytes)) / 1000)],
    }),
    ...growthRows(growth, ['file', `a ${transferMib} MiB transfer`]),
  ]
}

function rateRows(direction: 'up' | 'down', sizeMib: number, rates: ReadonlyMap<string, number[]>): Row[] {
  const floor = rates.get('direct') ?? []
  const what = `file ${direction}, ${sizeMib} MiB, through`
  const host = rates.get('host agent') ?? []
  return [
    row({
      id: `file.${direction}.host-agent`,
      what: `${what} the host agent only`,
      unit: 'MiB/s',
      samples: host,
      floor,
    }),
    row({
      id: `file.${direction}.rest`,
      what: `${what} REST`,
      unit: 'MiB/s',
      samples: rates.get('REST') ?? [],
      floor,
      budget: `≥ ${MIN_SHARE} × direct agent`,
      keeps: (ours, raw) => ours >= MIN_SHARE * raw,
    }),
  ]
}

export type Growth = Record<'control plane' | 'host agent' | 'guest agent', number[]>

/** @param what a transfer's group in ids, and what it was in words */
export function growthRows(growth: Growth, [group, what]: readonly [string, string]): Row[] {
  return Object.entries(growth).map(([name, samples]) =>
    row({
      id: `${group}.growth.${name.replace(' ', '-')}`,
      what: `peak RSS growth of the ${name} during ${what}`,
      unit: 'MiB',
      samples,
      budget: `≤ ${MAX_GROWTH_MIB} MiB`,
      keeps: () => Math.max(...samples) <= MAX_GROWTH_MIB,
      note: `largest ${round(Math.max(...samples))} MiB, median ${round(median(samples))} MiB`,
    }),
  )
}

/** Runs a transfer and notes by how much each process on its way grew at most, from where it stood just before. */
export async function watched(
  platform: Platform,
  direct: DirectGuest,
  agentPid: string,
  growth: Growth,
  work: () => Promise<unknown>,
): Promise<void> {
  const pids = { 'control plane': platform.pids.controlPlane, 'host agent': platform.pids.hostAgent } as const
  const before = new Map<string, number>()
  for (const [name, pid] of Object.entries(pids)) {
    await writeFile(`/proc/${pid}/clear_refs`, '5') // makes the peak the present: proc_pid_clear_refs(5)
    before.set(name, (await processUse(pid)).rssBytes)
  }
  const guestBefore = await guestRss(direct, agentPid, 'VmRSS')
  await direct.exec('/bin/sh', ['-c', `echo 5 > /proc/${agentPid}/clear_refs`])
  await work()
  for (const [name, pid] of Object.entries(pids)) {
    const grown = (await processUse(pid)).peakRssBytes - (before.get(name) ?? 0)
    growth[name as keyof typeof pids].push(grown / MIB) // the keys of `pids`, which Object.entries forgets
  }
  growth['guest agent'].push((await guestRss(direct, agentPid, 'VmHWM')) - guestBefore)
}

export async function guestAgentPid(direct: DirectGuest): Promise<string> {
  const script = 'grep -l "agent[.]mjs" /proc/[0-9]*/cmdline'
  const path = (await direct.execText('/bin/sh', ['-c', script])).trim().split('\n')[0]
  const pid = path?.split('/')[2]
  if (!pid) throw new Error('The guest agent is not among the processes of the guest.')
  return pid
}

/** MiB. */
async function guestRss(direct: DirectGuest, pid: string, field: 'VmRSS' | 'VmHWM'): Promise<number> {
  const status = await direct.execText('/bin/cat', [`/proc/${pid}/status`])
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) / 1024
}

async function hostWrite(platform: Platform, capsuleId: string, bytes: number): Promise<void> {
  async function* parts() {
    yield { part: { case: 'open' as const, value: { capsuleId, path: PATH, user: 'root' } } }
    for await (const value of byteSource(bytes)) yield { part: { case: 'chunk' as const, value } }
    yield { part: { case: 'complete' as const, value: true } }
  }
  await platform.host.writeFile(parts())
}

async function hostRead(platform: Platform, capsuleId: string): Promise<number> {
  let bytes = 0
  for await (const { part } of platform.host.readFile({ capsuleId, path: PATH, user: 'root', offset: 0n })) {
    if (part.case === 'chunk') bytes += part.value.length
  }
  return bytes
}

async function restWrite(platform: Platform, id: string, bytes: number): Promise<void> {
  await platform.upload(id, PATH, byteSource(bytes))
}

async function plainStreamMs(bytes: number): Promise<number> {
  const server = createServer(async (incoming, answer) => {
    await countBytes(incoming)
    answer.end()
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  try {
    return (await timed(() => post(port, byteSource(bytes)))).ms
  } finally {
    server.close()
  }
}

async function post(port: number, body: Readable): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, method: 'POST' }, (answer) => answer.resume().once('end', resolve))
    call.once('error', reject)
    body.pipe(call)
  })
}
