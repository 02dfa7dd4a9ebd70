import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, readFile } from 'node:fs/promises'
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

  it('kills only in the group that reached its memory limit, with version 2 all of it', async ({ skip }) => {
    if (cgroups.missing.has('memory')) return skip(`no memory controller: ${cgroups.missing.get('memory')}`)
    const full = await bare.create('cl-full', { memoryMib: 64, vcpus: 1 })
    const neighbour = await bare.create('cl-neighbour', { memoryMib: 64, vcpus: 1 })
    const bystander = spawnIn(neighbour, 'exec sleep 300')
    const mate = spawnIn(full, 'exec sleep 300')
    for (const { stdout } of [bystander, mate]) if (stdout) await once(stdout, 'data')
    const mateEnded = once(mate, 'exit')
    const hog = spawnIn(
      full,
      `exec ${process.execPath} -e 'const kept = []; for (;;) kept.push(Buffer.alloc(8 << 20, 1))'`,
    )
    expect((await once(hog, 'exit'))[1]).toBe('SIGKILL')
    if (cgroups.version === 2) expect((await mateEnded)[1]).toBe('SIGKILL')
    else expect(mate.exitCode).toBeNull()
    expect(bystander.exitCode ?? bystander.signalCode).toBeNull()
    expect(await cgroups.oomKills('cl-neighbour')).toBe(0)
    for (const id of ['cl-full', 'cl-neighbour']) await cgroups.remove(id)
  })

  it('lets a group make no more processes than its limit', async ({ skip }) => {
    if (cgroups.missing.has('pids')) return skip(`no pids controller: ${cgroups.missing.get('pids')}`)
    const group = await bare.create('cl-pids', { memoryMib: 64, vcpus: 1, pids: 4 })
    const child = spawnIn(group, 'for i in 1 2 3 4 5 6; do sleep 300 & done 2>&1')
    let said = ''
    child.stdout?.on('data', (text: Buffer) => {
      said += text.toString()
    })
    await expect.poll(() => said).toMatch(/fork/i)
    expect((await cgroups.stats('cl-pids')).pids).toBeLessThanOrEqual(4)
    await cgroups.remove('cl-pids')
  })

  it('takes its processes out of what a service manager ends with a service or a login session', async () => {
    const group = await cgroups.create('cl-tracked', { memoryMib: 64, vcpus: 1 })
    const child = spawnIn(group, 'exec sleep 300')
    if (child.stdout) await once(child.stdout, 'data')
    const membership = await readFile(`/proc/${child.pid}/cgroup`, 'utf8')
    const tracked = membership.split('\n').filter((line) => /^\d+:(name=.*)?:/.test(line))
    for (const line of tracked) expect(line).toMatch(/:\/(.*\/)?wrenntest\/cl-tracked$/)
    await cgroups.remove('cl-tracked')
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
