// node --conditions=wrenn-source --import tsx bench/soak-cycle.ts [--count 200] [--parallel 4]
// Creates a capsule, runs a command that only the right answer passes, destroys it; then counts what was left behind.
import { setTimeout as delay } from 'node:timers/promises'
import { errorText } from '@wrenn/base'
import { inTurns, leftovers, log, soakOptions, strays, withPlatform } from './soak.js'
import { percentile, round } from './stats.js'

/** The hot pool may be filling when the last capsule goes; its guests belong to nobody's list while they are made. */
const QUIET_MS = 15_000

const { count, parallel, port } = soakOptions({ count: 200, parallel: 4, port: 8206 })

const failed = await withPlatform(port, async (platform) => {
  const failures: string[] = []
  const ids: string[] = []
  const times: number[] = []
  const paths = new Map<string, number>()
  await inTurns(count, parallel, async (index) => {
    try {
      const start = performance.now()
      const { id, path = '?' } = await platform.create()
      ids.push(id)
      const token = `${index}-${id}`
      const said = await platform.exec(id, '/bin/sh', [
        '-c',
        `echo $((${index} * 3)); echo ${token} | tee /root/t; cat /root/t`,
      ])
      times.push(performance.now() - start)
      paths.set(path, (paths.get(path) ?? 0) + 1)
      if (said !== `${index * 3}\n${token}\n${token}\n`)
        failures.push(`turn ${index}: wrong answer ${JSON.stringify(said)}`)
      await platform.destroy(id)
    } catch (error) {
      failures.push(`turn ${index}: ${errorText(error)}`)
    }
    if (index % 20 === 19) log(`${index + 1}/${count}, ${failures.length} failures`)
  })
  await delay(QUIET_MS)
  const left = { ...(await leftovers(platform, ids)), strays: await strays(platform) }
  const result = {
    count,
    parallel,
    failures,
    paths: Object.fromEntries(paths),
    createAndFirstExecMs: { p50: round(percentile(times, 50)), p95: round(percentile(times, 95)) },
    left,
  }
  console.log(JSON.stringify(result, undefined, 2))
  return failures.length > 0 || Object.values(left).some((found) => found.length > 0)
})
process.exit(failed ? 1 : 0)
