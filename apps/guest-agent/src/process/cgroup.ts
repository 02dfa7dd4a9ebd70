import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '@wrenn/base'

/** Raised above the agent's, so that memory pressure ends the capsule's programs and never the agent. */
export const PROCESS_OOM_SCORE = '300'

/** One process tree's cgroup. */
export interface ProcessCgroup {
  readonly path: string
  /** Where the cgroup2 file system is mounted that `path` is in. */
  readonly mount: string
}

/**
 * cgroup2 children, one per started process. The agent itself enters the child's group for the moment of the fork: the new
 * process is born inside, so nothing it forks can escape, and no helper program runs in between.
 */
export class CgroupTree {
  readonly #root: string
  readonly #mount: string
  /** Held open, to spare each fork the opening: the agent's own group and its score. */
  readonly #home: number
  readonly #score: number
  readonly #oomScore: string
  /** Tells the groups of this agent from those of an earlier one with the same process id. */
  readonly #startedAt = Date.now().toString(36)
  readonly #left = new Set<ProcessCgroup>()
  /** Groups of processes that outlived the agent that started them. */
  readonly #orphans = new Set<ProcessCgroup>()
  #sequence = 0

  private constructor(root: string, home: string) {
    this.#root = root
    this.#mount = mountOf(home)
    for (const entry of readdirSync(root, { withFileTypes: true }))
      if (entry.isDirectory()) this.#orphans.add({ path: join(root, entry.name), mount: this.#mount })
    this.sweep()
    this.#oomScore = readFileSync('/proc/self/oom_score_adj', 'utf8').trim()
    this.#home = openSync(join(home, 'cgroup.procs'), 'w')
    this.#score = openSync('/proc/self/oom_score_adj', 'w')
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

  /** A group for one process; `undefined` where somebody took the file system away or made it read-only. */
  create(): ProcessCgroup | undefined {
    this.sweep()
    const path = join(this.#root, `p${process.pid}-${this.#startedAt}-${this.#sequence++}`)
    try {
      mkdirSync(path, { recursive: true })
      return { path, mount: this.#mount }
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'EACCES', 'EPERM', 'EROFS', 'EAGAIN', 'ENOSPC', 'ENOTDIR')) return undefined
      throw error
    }
  }

  /** Runs `fork` with this process inside `group`. */
  inside<T>(group: ProcessCgroup, fork: () => T): T {
    try {
      writeSync(this.#score, PROCESS_OOM_SCORE)
      writeFileSync(join(group.path, 'cgroup.procs'), '0')
      return fork()
    } finally {
      writeSync(this.#home, '0')
      writeSync(this.#score, this.#oomScore)
    }
  }

  /** Removes the group, now or once its last background process is gone. */
  remove(group: ProcessCgroup): void {
    if (!tryRemove(group)) this.#left.add(group)
  }

  /** Removes groups that were still in use when their process ended, where they are empty by now. */
  sweep(): void {
    for (const groups of [this.#left, this.#orphans])
      for (const group of groups) if (tryRemove(group)) groups.delete(group)
  }

  /** As `sweep`, and takes away the empty groups that processes made inside their own. */
  sweepBelow(): void {
    for (const group of [...this.#left, ...this.#orphans]) removeEmptyBelow(group)
    this.sweep()
  }

  close(): void {
    closeSync(this.#home)
    closeSync(this.#score)
  }

  /** The group of a process that an earlier agent started. */
  orphanWith(pid: number): ProcessCgroup | undefined {
    return [...this.#orphans].find((group) => pidsIn(group).includes(pid))
  }
}

/** The processes of the group and of those below it. */
export function pidsIn({ path }: Pick<ProcessCgroup, 'path'>): readonly number[] {
  try {
    const own = readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number)
    return [...own, ...groupsBelow(path).flatMap(pidsIn)]
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV', 'EOPNOTSUPP')) return []
    throw error
  }
}

/** Kills every process of the group and of those below it at once; false when the kernel has no `cgroup.kill` (before 5.14). */
export function killAll(group: Pick<ProcessCgroup, 'path'>): boolean {
  try {
    writeFileSync(join(group.path, 'cgroup.kill'), '1')
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV', 'EACCES', 'EOPNOTSUPP')) return false
    throw error
  }
}

function tryRemove({ path }: Pick<ProcessCgroup, 'path'>): boolean {
  try {
    rmdirSync(path)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true
    if (isErrno(error, 'EBUSY', 'ENOTEMPTY')) return false
    throw error
  }
}

function removeEmptyBelow({ path }: Pick<ProcessCgroup, 'path'>): void {
  for (const group of groupsBelow(path)) {
    removeEmptyBelow(group)
    tryRemove(group)
  }
}

function groupsBelow(path: string): readonly Pick<ProcessCgroup, 'path'>[] {
  const entries = existsSync(path) ? readdirSync(path, { withFileTypes: true }) : []
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => ({ path: join(path, name) }))
}

/** By what the kernel calls our own group, which is `home`. */
function mountOf(home: string): string {
  const own = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? ''
  return home.endsWith(own) ? home.slice(0, home.length - own.length) : home
}
