// node --conditions=wrenn-source --import tsx bench/soak-memory.ts [--copies 10] [--mib 512] [--leave-mib 2500]
// Leaves the host with little memory (a process that the kernel would kill first takes the rest), forks a capsule into many
// copies, half of them idle and half in use, and has every copy in use write all its memory again and again. The host must
// stay alive, and capsules must be paused with a reason, idle ones first, instead of dying.
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { errorText, waitFor } from '@wrenn/base'
import { log, withPlatform } from './soak.js'

const STRESS_MS = 60_000

const { values } = parseArgs({
  options: {
    copies: { type: 'string', default: '10' },
    mib: { type: 'string', default: '512' },
    'leave-mib': { type: 'string', default: '2500' },
    port: { type: 'string', default: '8206' },
  },
})
const copies = Number(values.copies)
const mib = Number(values.mib)
const leaveMib = Number(values['leave-mib'])

async function availableMib(): Promise<number> {
  const line = /^MemAvailable:\s+(\d+)/m.exec(await readFile('/proc/meminfo', 'utf8'))
  return Number(line?.[1]) / 1024
}

/** Takes memory until the host has `leaveMib` left; dies first when the kernel has to choose. */
async function takeMemory(): Promise<ChildProcess> {
  const take = Math.max(0, Math.round((await availableMib()) - leaveMib))
  log(`taking ${take} MiB of the host`)
  const script = `const kept = []; for (let i = 0; i < ${take}; i++) kept.push(Buffer.alloc(2 ** 20, i % 255 + 1)); console.log('ready'); setInterval(() => {}, 1e9)`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await writeFile(`/proc/${child.pid}/oom_score_adj`, '1000')
  await new Promise((resolve) => child.stdout?.once('data', resolve))
  return child
}

async function follow(stream: AsyncIterable<unknown>): Promise<void> {
  try {
    for await (const _ of stream) {
      // it says nothing
    }
  } catch {
    // it ends with the capsule
  }
}

const WRITER = `
import os
size = ${mib} * 6 // 10
kept = [bytearray(os.urandom(4096) * 256) for _ in range(size)]
while True:
    for block in kept:
        block[0:1 << 20] = os.urandom(4096) * 256
`

const failed = await withPlatform(Number(values.port), async (platform) => {
  const failures: string[] = []
  const source = await platform.create({ memory_mb: mib, name: 'memory' })
  const forked = await platform.call<{ capsules: { id: string }[] }>(
    'POST',
    `/v1/capsules/${source.id}/fork?wait_sec=200`,
    { count: copies },
  )
  const ids = forked.capsules.map(({ id }) => id)
  const used = ids.filter((_, index) => index % 2 === 0)
  const idle = ids.filter((_, index) => index % 2 === 1)
  // An open stream is what tells a capsule in use; all are open before the host gets short.
  const streams = await Promise.all(
    used.map(async (id) => {
      const capsule = await platform.wrenn.capsules.get(id)
      return await capsule.stream(['python3', '-c', WRITER], { user: 'root' })
    }),
  )
  for (const stream of streams) void follow(stream)
  const hog = await takeMemory()
  try {
    const order: string[] = []
    const until = performance.now() + STRESS_MS
    while (performance.now() < until) {
      for (const id of [...idle, ...used, source.id]) {
        const info = await platform.call<{ state: string; pause_reason?: string; exit?: unknown }>(
          'GET',
          `/v1/capsules/${id}`,
        )
        if (info.state === 'error') failures.push(`${id} died: ${JSON.stringify(info.exit)}`)
        if (info.state === 'paused' && !order.includes(id)) {
          order.push(id)
          log(
            `${idle.includes(id) ? 'idle' : 'used'} capsule paused: ${info.pause_reason}, ${Math.round(await availableMib())} MiB available`,
          )
          if (info.pause_reason !== 'memory_pressure') failures.push(`${id} was paused because of ${info.pause_reason}`)
        }
      }
      if (failures.length > 0) break
      await delay(500)
    }
    const firstUsed = order.findIndex((id) => used.includes(id))
    const idlePausedLater = order.slice(firstUsed === -1 ? order.length : firstUsed).filter((id) => idle.includes(id))
    if (order.length === 0) failures.push('nothing was paused')
    if (idlePausedLater.length > 0)
      failures.push(`${idlePausedLater.length} idle capsules were paused after ones in use`)
    hog.kill('SIGKILL')
    await waitFor(async () => ((await availableMib()) > leaveMib * 1.5 ? true : undefined), {
      timeoutMs: 60_000,
      what: 'the memory to come back',
    })
    for (const id of order) {
      await platform.call('POST', `/v1/capsules/${id}/resume?wait_sec=60`)
      await platform.exec(id, '/bin/true').catch((error: unknown) => failures.push(`${id}: ${errorText(error)}`))
    }
    console.log(
      JSON.stringify({ copies, mib, leaveMib, paused: order.length, idle: idle.length, failures }, undefined, 2),
    )
  } finally {
    hog.kill('SIGKILL')
    for (const id of [...ids, source.id]) await platform.destroy(id).catch(() => {})
  }
  return failures.length > 0
})
process.exit(failed ? 1 : 0)
