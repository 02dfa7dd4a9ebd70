import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '@wrenn/base'

/** Raised above the agent's, so that memory pressure ends the capsule's programs and never the agent. */
const PROCESS_OOM_SCORE = '300'

/** One process tree's cgroup. */
export interface ProcessCgroup {
  readonly path: string
}

/**
 * cgroup2 children, one per started process. The agent itself enters the child's group for the moment of the fork: the new
 * process is born inside, so nothing it forks can escape, and no helper program runs in between.
 */
export class CgroupTree {
  readonly #root: string
  readonly #home: string
  readonly #oomScore: string
  /** Tells the groups of this agent from those of an earlier one with the same process id. */
  readonly #startedAt = Date.now().toString(36)
  readonly #left = new Set<ProcessCgroup>()
  /** Groups of processes that outlived the agent that started them. */
  readonly #orphans = new Set<ProcessCgroup>()
  #sequence = 0

  private constructor(root: string, home: string) {
    this.#root = root
    this.#home = home
    for (const entry of readdirSync(root, { withFileTypes: true }))
      if (entry.isDirectory()) this.#orphans.add({ path: join(root, entry.name) })
    this.sweep()
    this.#oomScore = readFileSync('/proc/self/oom_score_adj', 'utf8').trim()
  }

  /** `undefined` when `dir` is not a cgroup2 directory the agent may divide. */
  static open(dir: string | undefined): CgroupTree | undefined {
    if (dir === undefined) return undefined
    try {
      const home = join(dir, 'wrenn-agent')
      const root = join(dir, 'wrenn-processes')
      mkdirSync(home, { recursive: true })
      mkdirSync(root, { recursive: true })
      writeFileSync(join(home, 'cgroup.procs'), '0')
      return new CgroupTree(root, home)
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'EACCES', 'EPERM', 'EROFS', 'EBUSY', 'EINVAL', 'EOPNOTSUPP')) return undefined
      throw error
    }
  }

  create(): ProcessCgroup {
    this.sweep()
    const path = join(this.#root, `p${process.pid}-${this.#startedAt}-${this.#sequence++}`)
    mkdirSync(path)
    return { path }
  }

  /** Runs `fork` with this process inside `group`. */
  inside<T>(group: ProcessCgroup, fork: () => T): T {
    try {
      writeFileSync('/proc/self/oom_score_adj', PROCESS_OOM_SCORE)
      writeFileSync(join(group.path, 'cgroup.procs'), '0')
      return fork()
    } finally {
      writeFileSync(join(this.#home, 'cgroup.procs'), '0')
      writeFileSync('/proc/self/oom_score_adj', this.#oomScore)
    }
  }

  /** Removes the group, now or once its last background process is gone. */
  remove(group: ProcessCgroup): void {
    if (!tryRemove(group)) this.#left.add(group)
  }

  sweep(): void {
    for (const groups of [this.#left, this.#orphans])
      for (const group of groups) if (tryRemove(group)) groups.delete(group)
  }

  /** The group of a process that an earlier agent started. */
  orphanWith(pid: number): ProcessCgroup | undefined {
    return [...this.#orphans].find((group) => pidsIn(group).includes(pid))
  }
}

export function pidsIn(group: ProcessCgroup): readonly number[] {
  try {
    return readFileSync(join(group.path, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV')) return []
    throw error
  }
}

/** Kills every process of the group at once; false when the kernel has no `cgroup.kill` (before 5.14). */
export function killAll(group: ProcessCgroup): boolean {
  try {
    writeFileSync(join(group.path, 'cgroup.kill'), '1')
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV', 'EACCES', 'EOPNOTSUPP')) return false
    throw error
  }
}

function tryRemove(group: ProcessCgroup): boolean {
  try {
    rmdirSync(group.path)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true
    if (isErrno(error, 'EBUSY', 'ENOTEMPTY')) return false
    throw error
  }
}
