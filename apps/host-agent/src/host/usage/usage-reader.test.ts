import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identify } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { UsageReader } from './usage-reader.js'

const links = (tap: string): string => `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
${tap}  eth0: 9999      99    0    0    0     0          0         0     8888      88    0    0    0     0       0          0
`
const tap =
  '  tap0:  2002003      20    0    0    0     0          0         0 70001002      70    0    0    0     0       0          0\n'

let root: string
let disk: string

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'wrenn-usage-'))
  disk = join(root, 'disk.raw')
  await writeFile(disk, Buffer.alloc(20_000, 1))
})
afterEach(async () => {
  await rm(root, { recursive: true, force: true })
})

/** proc_pid_stat(5) of a process with a name that means to confuse. */
async function process(pid: number, { startTicks = '77', net = links(tap) } = {}): Promise<void> {
  const numbers = Array.from({ length: 50 }, (_, index) => String(index + 3))
  Object.assign(numbers, { 0: 'S', 11: '120', 12: '34', 19: startTicks, 21: '25' })
  await mkdir(join(root, String(pid), 'net'), { recursive: true })
  await writeFile(join(root, String(pid), 'stat'), `${pid} (qemu ) 1 2) ${numbers.join(' ')}\n`)
  await writeFile(join(root, String(pid), 'net/dev'), net)
}

describe('reading what a guest uses', () => {
  it('gives time, memory, disk, and what its tap counted, seen from the guest', async () => {
    await process(4)
    expect(new UsageReader(root).read({ pid: 4, pidStartTicks: '77' }, disk)).toEqual({
      cpuTicks: 154,
      rssBytes: 25 * 4096,
      diskBytes: expect.any(Number),
      net: { rxBytes: 70_001_002, txBytes: 2_002_003 },
    })
    expect(new UsageReader(root).read({ pid: 4, pidStartTicks: '77' }, disk)?.diskBytes).toBeGreaterThanOrEqual(20_000)
  })

  it('gives what the tap counted alone, of this process and no other', async () => {
    await process(4)
    const reader = new UsageReader(root)
    expect(reader.readNet({ pid: 4, pidStartTicks: '77' })).toEqual({ rxBytes: 70_001_002, txBytes: 2_002_003 })
    expect(reader.readNet({ pid: 4, pidStartTicks: '78' })).toBeUndefined()
    expect(reader.readNet({ pid: 5, pidStartTicks: '77' })).toBeUndefined()
    await process(6, { net: links('') })
    expect(reader.readNet({ pid: 6, pidStartTicks: '77' })).toBeUndefined()
  })

  it('says nothing of the network where there is no tap', async () => {
    await process(4, { net: links('') })
    expect(new UsageReader(root).read({ pid: 4, pidStartTicks: '77' }, disk)?.net).toBeUndefined()
  })

  it('gives nothing of a process that has ended, of another one with its pid, or without a disk', async () => {
    await process(4, { startTicks: '78' })
    const reader = new UsageReader(root)
    expect(reader.read({ pid: 5, pidStartTicks: '77' }, disk)).toBeUndefined()
    expect(reader.read({ pid: 4, pidStartTicks: '77' }, disk)).toBeUndefined()
    expect(reader.read({ pid: 4, pidStartTicks: '78' }, `${disk}.gone`)).toBeUndefined()
  })

  it('reads the files that this kernel has', async () => {
    const id = await identify(globalThis.process.pid)
    const usage = new UsageReader().read({ pid: id?.pid ?? 0, pidStartTicks: id?.startTicks ?? '' }, disk)
    expect(usage?.cpuTicks).toBeGreaterThan(0)
    expect(usage?.rssBytes).toBeGreaterThan(2 ** 20)
  })
})
