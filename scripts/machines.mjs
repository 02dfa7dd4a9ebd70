// npm run test:machines [-- <release> …] [--steps a,b] [--dir D] [--seed POOL] [--record]
// Boots real Debian machines (systemd, cgroup version 2, Debian's own Node.js and QEMU) as emulated VMs, brings this checkout's HEAD
// into each and runs the steps of `machines/steps` there. Takes half an hour and more for each; needs root, mmdebstrap,
// e2fsprogs, btrfs-progs and QEMU. `--record` puts the result into docs/machines.md.
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { ensureDisk } from './machines/disk.mjs'
import { bringDisk, poolDisk } from './machines/luggage.mjs'
import { record, tableOf } from './machines/report.mjs'
import { allSteps, runMachine } from './machines/run.mjs'
import { fail, say } from './prepare.mjs'

const DEFAULT_RELEASES = ['trixie', 'bookworm']
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** Disks are kept there from run to run. */
    dir: { type: 'string', default: '/var/tmp/wrenn-machines' },
    steps: { type: 'string', default: allSteps().join(',') },
    /** Pool of a platform whose base image is brought along: making it takes longer than everything else there. */
    seed: { type: 'string' },
    record: { type: 'boolean', default: false },
  },
})

if (process.getuid?.() !== 0) fail('Making disks of Debian machines needs root.')
const steps = values.steps.split(',')
const unknown = steps.filter((step) => !allSteps().includes(step))
if (unknown.length > 0) fail(`There is no step ${unknown.join(', ')}; there are ${allSteps().join(', ')}.`)

const results = []
for (const release of positionals.length > 0 ? positionals : DEFAULT_RELEASES) {
  const dir = join(resolve(values.dir), release)
  mkdirSync(dir, { recursive: true })
  ensureDisk(release, dir)
  const luggage = bringDisk(dir, steps)
  const pool = poolDisk(dir, values.seed)
  say(`› ${release}: booting; its console is ${join(dir, 'serial.log')}`)
  results.push({ release, ...(await runMachine(dir, [luggage, pool], steps)) })
}
process.stdout.write(`${tableOf(results)}\n`)
if (values.record) record(results)
if (results.some((result) => result.steps.some(({ outcome }) => outcome === 'failed' || outcome === 'did not end')))
  process.exit(1)
