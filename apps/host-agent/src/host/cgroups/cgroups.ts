import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, isErrno, type Logger, settleAll, waitFor } from '@wrenn/base'
import { listMounts, type Mount } from '../mounts.js'
import { type Controller, type Hierarchy, openHierarchy } from './hierarchy.js'

const MIB = 2 ** 20

/**
 * Beside guest RAM: QEMU's heap, device state and, without KVM, translated code. Guest RAM itself is a shared file mapping, so it counts as
 * page cache: near the limit the kernel writes cold guest pages to their file before it thinks of killing anything.
 */
const OVERHEAD_MIB = 384
/** Half a core above the vCPUs for I/O and translation threads. */
const HEADROOM_CPUS = 0.5
const CPU_PERIOD_US = 100_000
/** QEMU's own threads: one per vCPU, the main loop, and up to 64 workers for disk I/O. */
const OWN_PIDS = 96
const EMPTY_TIMEOUT_MS = 5000

/** What a guest has; the engine's own needs are added to it. */
export interface CgroupLimits {
  /** Of the guest. 384 MiB for the engine come on top. */
  readonly memoryMib: number
  /** Of the guest. Half a core for the engine's own threads comes on top. */
  readonly vcpus: number
  /** @default 96 + vcpus */
  readonly pids?: number
}

/** What the kernel was told; `undefined` where the machine lacks the controller. */
export interface AppliedLimits {
  readonly memoryBytes: number | undefined
  readonly cpus: number | undefined
  readonly pids: number | undefined
}

/** A group of one VM, which exists in one tree (version 2) or in one per controller (version 1). */
export interface Cgroup {
  /** The process writes its pid to `cgroup.procs` in each before it starts. */
  readonly directories: readonly string[]
  /** `undefined` where the machine lacks the controller. */
  readonly applied: AppliedLimits
}

/** What a group uses now. `undefined` where the controller is missing. */
export interface CgroupStats {
  readonly memoryBytes: number | undefined
  readonly cpuNs: bigint | undefined
  readonly pids: number | undefined
  /** Time for which the CPU quota held the group back. */
  readonly throttledNs: bigint | undefined
}

/** Resource limits of engine processes, one group per VM. */
export interface Cgroups {
  readonly version: 1 | 2
  /** Controllers that this machine lacks, with the reason: their limits are not applied. */
  readonly missing: ReadonlyMap<Controller, string>
  /** Makes the group or changes its limits. */
  create(id: string, limits: CgroupLimits): Promise<Cgroup>
  /** @throws AppError `not_found` */
  stats(id: string): Promise<CgroupStats>
  /** How often the kernel killed something in the group for its memory limit; 0 when it cannot be known. */
  oomKills(id: string): Promise<number>
  /** Ids of all our groups, in whichever tree. */
  list(): Promise<readonly string[]>
  /** Kills what is left inside, waits until it is gone and removes the group; idempotent. */
  remove(id: string): Promise<void>
  /** Removes every group that is not in `keep`; gives the removed ids. */
  sweep(keep: ReadonlySet<string>): Promise<readonly string[]>
  /** Removes all groups and our parent directories. */
  removeAll(): Promise<void>
}

/** Where our groups go and what an engine needs beside its guest. */
export interface CgroupsOptions {
  /** Name of our parent group: WRENN_INSTANCE. */
  readonly name: string
  readonly logger: Logger
  /** Memory beside the guest's RAM. @default 384 */
  readonly overheadMib?: number
  /** CPU beside the guest's vCPUs. @default 0.5 */
  readonly headroomCpus?: number
  /** Where the machine has its cgroup trees. @default what is mounted */
  readonly mounts?: readonly Mount[]
}

/**
 * Makes our parent group in each tree and switches its controllers on. What the machine lacks is logged once and left out,
 * because a capsule without a limit is better than none on a machine of one's own.
 */
export async function createCgroups(options: CgroupsOptions): Promise<Cgroups> {
  const { name, logger, overheadMib = OVERHEAD_MIB, headroomCpus = HEADROOM_CPUS } = options
  const hierarchy = await openHierarchy(name, options.mounts ?? (await listMounts()))
  for (const [controller, reason] of hierarchy.missing) {
    logger.warn({ controller, reason }, 'cgroups.controller_missing')
  }
  return new HostCgroups(hierarchy, overheadMib, headroomCpus)
}

class HostCgroups implements Cgroups {
  constructor(
    private readonly hierarchy: Hierarchy,
    private readonly overheadMib: number,
    private readonly headroomCpus: number,
  ) {}

  get version(): 1 | 2 {
    return this.hierarchy.version
  }

  get missing(): ReadonlyMap<Controller, string> {
    return this.hierarchy.missing
  }

  get #parents(): readonly string[] {
    return [...new Set([...this.hierarchy.parents.values(), ...this.hierarchy.tracking])]
  }

  async create(id: string, { memoryMib, vcpus, pids = OWN_PIDS + vcpus }: CgroupLimits): Promise<Cgroup> {
    const directories = this.#directories(id)
    await settleAll(directories.map((directory) => mkdir(directory, { recursive: true })))
    const memoryBytes = (memoryMib + this.overheadMib) * MIB
    const cpus = vcpus + this.headroomCpus
    const [memoryLimited, cpuLimited, pidsLimited] = await settleAll([
      this.#limitMemory(id, memoryBytes),
      this.#limitCpu(id, cpus),
      this.#write(id, 'pids', 'pids.max', String(pids)),
    ])
    const applied = {
      memoryBytes: memoryLimited ? memoryBytes : undefined,
      cpus: cpuLimited ? cpus : undefined,
      pids: pidsLimited ? pids : undefined,
    }
    return { directories, applied }
  }

  async stats(id: string): Promise<CgroupStats> {
    if (!(await this.list()).includes(id)) throw new AppError('not_found', `There is no cgroup for ${id}.`)
    return this.version === 2 ? await this.#statsUnified(id) : await this.#statsSeparate(id)
  }

  async oomKills(id: string): Promise<number> {
    const text = await this.#read(id, 'memory', this.version === 2 ? 'memory.events' : 'memory.oom_control')
    return Number(field(text, 'oom_kill') ?? 0)
  }

  async list(): Promise<readonly string[]> {
    const ids = new Set<string>()
    for (const parent of this.#parents) {
      const entries = await readdir(parent, { withFileTypes: true })
      for (const entry of entries) if (entry.isDirectory()) ids.add(entry.name)
    }
    return [...ids]
  }

  async remove(id: string): Promise<void> {
    await settleAll(this.#directories(id).map(removeGroup))
  }

  async sweep(keep: ReadonlySet<string>): Promise<readonly string[]> {
    const stale = (await this.list()).filter((id) => !keep.has(id))
    for (const id of stale) await this.remove(id)
    return stale
  }

  async removeAll(): Promise<void> {
    await this.sweep(new Set())
    for (const parent of this.#parents) await removeGroup(parent)
  }

  async #limitMemory(id: string, bytes: number): Promise<boolean> {
    if (this.version === 1) return await this.#write(id, 'memory', 'memory.limit_in_bytes', String(bytes))
    // The group lives or dies as one; and guest RAM has its file to go to, swap would only be a second copy.
    await this.#write(id, 'memory', 'memory.oom.group', '1')
    await this.#write(id, 'memory', 'memory.swap.max', '0')
    return await this.#write(id, 'memory', 'memory.max', String(bytes))
  }

  async #limitCpu(id: string, cpus: number): Promise<boolean> {
    const quota = Math.round(cpus * CPU_PERIOD_US)
    if (this.version === 2) return await this.#write(id, 'cpu', 'cpu.max', `${quota} ${CPU_PERIOD_US}`)
    await this.#write(id, 'cpu', 'cpu.cfs_period_us', String(CPU_PERIOD_US))
    return await this.#write(id, 'cpu', 'cpu.cfs_quota_us', String(quota))
  }

  async #statsUnified(id: string): Promise<CgroupStats> {
    const cpu = await this.#read(id, 'cpuacct', 'cpu.stat')
    return {
      memoryBytes: number(await this.#read(id, 'memory', 'memory.current')),
      cpuNs: scaled(field(cpu, 'usage_usec'), 1000n),
      pids: number(await this.#read(id, 'pids', 'pids.current')),
      throttledNs: scaled(field(cpu, 'throttled_usec'), 1000n),
    }
  }

  async #statsSeparate(id: string): Promise<CgroupStats> {
    const cpu = await this.#read(id, 'cpu', 'cpu.stat')
    return {
      memoryBytes: number(await this.#read(id, 'memory', 'memory.usage_in_bytes')),
      cpuNs: scaled((await this.#read(id, 'cpuacct', 'cpuacct.usage'))?.trim(), 1n),
      pids: number(await this.#read(id, 'pids', 'pids.current')),
      throttledNs: scaled(field(cpu, 'throttled_time'), 1n),
    }
  }

  #directories(id: string): readonly string[] {
    if (!/^[\w.-]+$/.test(id) || id.startsWith('.')) throw new Error(`not a cgroup name: ${id}`)
    return this.#parents.map((parent) => join(parent, id))
  }

  /** False when the controller is missing. A kernel built without this one knob (swap, group kill) is fine too. */
  async #write(id: string, controller: Controller, file: string, value: string): Promise<boolean> {
    const parent = this.hierarchy.parents.get(controller)
    if (parent === undefined || this.hierarchy.missing.has(controller)) return false
    try {
      await writeFile(join(parent, id, file), value, { flag: 'r+' })
      return true
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false
      throw new AppError('engine_failure', `Setting ${file} to ${value} for ${id} failed: ${errorText(error)}`, {
        cause: error,
      })
    }
  }

  async #read(id: string, controller: Controller | 'cpuacct', file: string): Promise<string | undefined> {
    const parent = this.hierarchy.parents.get(controller)
    return parent === undefined ? undefined : await readIfThere(join(parent, id, file))
  }
}

async function removeGroup(directory: string): Promise<void> {
  await waitFor(() => tryRemove(directory), {
    timeoutMs: EMPTY_TIMEOUT_MS,
    intervalMs: 5,
    what: `the processes of cgroup ${directory} to end`,
    code: 'engine_failure',
  })
}

/** `undefined` as long as something lives inside. */
async function tryRemove(directory: string): Promise<true | undefined> {
  try {
    await rmdir(directory)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true
    if (!isErrno(error, 'EBUSY')) throw error
    await killAll(directory)
    return undefined
  }
}

async function killAll(directory: string): Promise<void> {
  const pids = (await readIfThere(join(directory, 'cgroup.procs')))?.split('\n').filter((line) => line !== '') ?? []
  for (const pid of pids) {
    try {
      process.kill(Number(pid), 'SIGKILL')
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw error
    }
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV')) return undefined
    throw error
  }
}

/** The value of a `key value` line. */
function field(text: string | undefined, key: string): string | undefined {
  const line = text?.split('\n').find((candidate) => candidate.startsWith(`${key} `))
  return line?.slice(key.length + 1)
}

function number(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Number(text)
}

function scaled(text: string | undefined, factor: bigint): bigint | undefined {
  return text === undefined ? undefined : BigInt(text) * factor
}
