// node --conditions=wrenn-source --import tsx bench/soak-boot.ts [--count 100] [--parallel 2]
// Boots the base image cold while every CPU is busy with something else, and counts the boots that hang or fail. Each boot
// uses a memory size of its own, because a size that was used once is restored and not booted.
import { type ChildProcess, spawn } from 'node:child_process'
import { readdir, rm } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { errorText } from '@wrenn/base'
import type { Platform } from './platform.js'
import { inTurns, log, soakOptions, withPlatform } from './soak.js'
import { percentile, round } from './stats.js'

const SMALLEST_MIB = 192

const { count, parallel, port } = soakOptions({ count: 100, parallel: 2, port: 8206 })

/** One busy loop per CPU. */
function startLoad(): ChildProcess[] {
  return Array.from({ length: availableParallelism() }, () =>
    spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }),
  )
}

async function removeTemplate(platform: Platform, memoryMib: number): Promise<void> {
  const dir = join(platform.dir, 'pool/templates')
  const names = (await readdir(dir)).filter((name) => name.includes(`-1x${memoryMib}-`))
  await Promise.all(names.map((name) => rm(join(dir, name), { recursive: true, force: true })))
}

const failed = await withPlatform(port, async (platform) => {
  const failures: string[] = []
  const times: number[] = []
  const load = startLoad()
  try {
    await inTurns(count, parallel, async (index) => {
      const memoryMib = SMALLEST_MIB + index
      await removeTemplate(platform, memoryMib) // of an earlier soak in a kept directory
      try {
        const start = performance.now()
        const { id, path } = await platform.create({ memory_mb: memoryMib })
        times.push(performance.now() - start)
        if (path !== 'cold') failures.push(`boot ${index}: took the path ${path}`)
        await platform.destroy(id)
      } catch (error) {
        failures.push(`boot ${index}: ${errorText(error)}`)
      }
      log(`${index + 1}/${count}, ${failures.length} failures, last ${Math.round(times.at(-1) ?? 0)} ms`)
    })
  } finally {
    for (const child of load) child.kill('SIGKILL')
    for (let index = 0; index < count; index++) await removeTemplate(platform, SMALLEST_MIB + index)
  }
  const bootMs = {
    p50: round(percentile(times, 50)),
    p95: round(percentile(times, 95)),
    max: round(Math.max(...times)),
  }
  console.log(JSON.stringify({ count, parallel, failures, bootMs }, undefined, 2))
  return failures.length > 0
})
process.exit(failed ? 1 : 0)
