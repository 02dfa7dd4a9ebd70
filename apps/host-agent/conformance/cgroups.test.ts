import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access } from 'node:fs/promises'
import { silentLogger } from '@wrenn/base'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Cgroup, type Cgroups, type CgroupsOptions, createCgroups } from '../src/host/cgroups/index.js'
import { listHostResources } from '../src/host/inventory.js'

const MIB = 2 ** 20

/** A shell that joins the group's directories before it becomes `command`, as engines do. */
function spawnIn(cgroup: Cgroup, command: string): ChildProcess {
  const joins = cgroup.directories.map((directory) => `echo $$ > ${directory}/cgroup.procs`)
  return spawn('sh', ['-c', [...joins, 'echo joined', command].join('; ')], { stdio: ['pipe', 'pipe', 'inherit'] })
}

describe.skipIf(process.getuid?.() !== 0)('cgroups (needs root)', () => {
  let cgroups: Cgroups
  /** Without allowances, so that small limits can be reached. */
  let bare: Cgroups
  const open = (over: Partial<CgroupsOptions> = {}): Promise<Cgroups> =>
    createCgroups({ name: 'wrenntest', logger: silentLogger, ...over })

  beforeAll(async () => {
    cgroups = await open()
    bare = await open({ overheadMib: 0, headroomCpus: 0 })
  })

  afterAll(async () => {
    await cgroups.removeAll()
  })

  it('applies limits and says which ones, counts what runs inside, and kills it on removal', async () => {
    const group = await cgroups.create('cl-one', { memoryMib: 128, vcpus: 2, pids: 20 })
    const lacks = (controller: 'memory' | 'cpu' | 'pids'): boolean => cgroups.missing.has(controller)
    expect(group.applied).toEqual({
      memoryBytes: lacks('memory') ? undefined : (128 + 384) * MIB,
      cpus: lacks('cpu') ? undefined : 2.5,
      pids: lacks('pids') ? undefined : 20,
    })
    const child = spawnIn(group, 'exec sleep 300')
    const ended = once(child, 'exit')
    if (child.stdout) await once(child.stdout, 'data')
    const stats = await cgroups.stats('cl-one')
    if (!lacks('pids')) expect(stats.pids).toBe(1)
    expect(await cgroups.oomKills('cl-one')).toBe(0)
    const inventory = await listHostResources({ prefix: 'wrenntest', dir: '/nowhere' })
    expect(inventory.filter(({ kind, owner }) => kind === 'cgroup' && owner === 'cl-one')).toHaveLength(
      group.directories.length,
    )
    await cgroups.remove('cl-one')
    expect((await ended)[1]).toBe('SIGKILL')
    for (const directory of group.directories) await expect(access(directory)).rejects.toThrow(/ENOENT/)
    await cgroups.remove('cl-one')
    await expect(cgroups.stats('cl-one')).rejects.toMatchObject({ code: 'not_found' })
  })

  it('counts what the kernel killed for its memory', async ({ skip }) => {
    if (cgroups.missing.has('memory')) return skip(`no memory controller: ${cgroups.missing.get('memory')}`)
    const group = await bare.create('cl-oom', { memoryMib: 64, vcpus: 1 })
    const child = spawnIn(
      group,
      `exec ${process.execPath} -e 'const kept = []; for (;;) kept.push(Buffer.alloc(8 << 20, 1))'`,
    )
    expect((await once(child, 'exit'))[1]).toBe('SIGKILL')
    expect(await cgroups.oomKills('cl-oom')).toBeGreaterThan(0)
    await cgroups.remove('cl-oom')
  })

  it('holds a busy group to its quota', async ({ skip }) => {
    if (cgroups.missing.has('cpu')) return skip(`no cpu controller: ${cgroups.missing.get('cpu')}`)
    const group = await bare.create('cl-cpu', { memoryMib: 64, vcpus: 0.1, pids: 20 })
    const child = spawnIn(group, 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done')
    await once(child, 'exit')
    const { throttledNs, cpuNs } = await cgroups.stats('cl-cpu')
    expect(throttledNs).toBeGreaterThan(0n)
    expect(cpuNs).toBeGreaterThan(0n)
    await cgroups.remove('cl-cpu')
  })

  it('sweeps groups that nobody owns', async () => {
    for (const id of ['cl-kept', 'cl-stale']) await cgroups.create(id, { memoryMib: 64, vcpus: 1 })
    expect(await cgroups.sweep(new Set(['cl-kept']))).toEqual(['cl-stale'])
    expect(await cgroups.list()).toEqual(['cl-kept'])
    await cgroups.removeAll()
    await expect(cgroups.list()).rejects.toThrow(/ENOENT/)
    cgroups = await open()
  })
})
