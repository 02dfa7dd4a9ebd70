import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLogger } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Cgroups, createCgroups } from './cgroups.js'

/** A version 2 tree as files: what the kernel would read from us and show us. */
describe('cgroups version 2', () => {
  let root = ''
  const file = (...parts: string[]): string => join(root, ...parts)
  const open = (): Promise<Cgroups> =>
    createCgroups({
      name: 'wrenn',
      logger: silentLogger,
      mounts: [{ target: root, source: 'cgroup2', type: 'cgroup2', options: [] }],
    })

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'wrenn-cgroup-'))
    await mkdir(file('wrenn/cl-1'), { recursive: true })
  })

  afterEach(async () => {
    await rm(root, { recursive: true })
  })

  it('writes the limits into one directory and reads the counters there', async () => {
    await writeFile(file('cgroup.controllers'), 'cpuset cpu io memory pids\n')
    for (const name of ['memory.max', 'memory.swap.max', 'memory.oom.group', 'cpu.max', 'pids.max']) {
      await writeFile(file('wrenn/cl-1', name), '')
    }
    const cgroups = await open()
    const group = await cgroups.create('cl-1', { memoryMib: 512, vcpus: 2 })
    expect([cgroups.version, group.directories, [...cgroups.missing]]).toEqual([2, [file('wrenn/cl-1')], []])
    expect(group.applied).toEqual({ memoryBytes: 896 * 2 ** 20, cpus: 2.5, pids: 98 })
    expect(await readFile(file('wrenn/cl-1/memory.max'), 'utf8')).toBe(String(896 * 2 ** 20))
    expect(await readFile(file('wrenn/cl-1/cpu.max'), 'utf8')).toBe('250000 100000')
    expect(await readFile(file('wrenn/cgroup.subtree_control'), 'utf8')).toBe('+pids')

    await writeFile(file('wrenn/cl-1/memory.current'), '4096\n')
    await writeFile(file('wrenn/cl-1/cpu.stat'), 'usage_usec 5\nuser_usec 3\nthrottled_usec 2\n')
    await writeFile(file('wrenn/cl-1/memory.events'), 'low 0\noom 3\noom_kill 2\noom_group_kill 1\n')
    expect(await cgroups.stats('cl-1')).toEqual({
      memoryBytes: 4096,
      cpuNs: 5000n,
      pids: undefined,
      throttledNs: 2000n,
    })
    expect(await cgroups.oomKills('cl-1')).toBe(2)
  })

  it('works without some controllers and says which', async () => {
    await writeFile(file('cgroup.controllers'), 'pids\n')
    await writeFile(file('wrenn/cl-1/pids.max'), '')
    const cgroups = await open()
    expect([...cgroups.missing.keys()]).toEqual(['memory', 'cpu'])
    const { applied } = await cgroups.create('cl-1', { memoryMib: 512, vcpus: 1 })
    expect(applied).toEqual({ memoryBytes: undefined, cpus: undefined, pids: 97 })
    expect(await cgroups.oomKills('cl-1')).toBe(0)
  })

  it('works without any controller at all', async () => {
    const cgroups = await createCgroups({ name: 'wrenn', logger: silentLogger, mounts: [] })
    const group = await cgroups.create('cl-1', { memoryMib: 512, vcpus: 1 })
    expect([group.directories, await cgroups.list(), cgroups.missing.size]).toEqual([[], [], 3])
    await cgroups.remove('cl-1')
  })
})
