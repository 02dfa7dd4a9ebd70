import { readdir, readFile, readlink } from 'node:fs/promises'
import { isErrno } from '@wrenn/base'

/** A mount of this process's namespace. */
export interface Mount {
  readonly target: string
  readonly source: string
  readonly type: string
  /** Of the file system, not of this mount: a cgroup hierarchy's controllers are here. */
  readonly options: readonly string[]
}

interface Holder {
  readonly pid: number
  readonly name: string
}

/** proc(5): space, tab, newline and backslash come as octal escapes. */
function unescapeOctal(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}

/** Parses /proc/self/mountinfo. */
export function parseMounts(text: string): readonly Mount[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const fields = line.split(' ')
      const separator = fields.indexOf('-')
      const [type = '', source = '', options = ''] = fields.slice(separator + 1)
      return {
        target: unescapeOctal(fields[4] ?? ''),
        source: unescapeOctal(source),
        type,
        options: options.split(','),
      }
    })
}

/** All mounts, the lower ones of a place before those that cover them. */
export async function listMounts(): Promise<readonly Mount[]> {
  return parseMounts(await readFile('/proc/self/mountinfo', 'utf8'))
}

/** The topmost mount at exactly `target`. */
export async function mountAt(target: string): Promise<Mount | undefined> {
  return (await listMounts()).findLast((mount) => mount.target === target)
}

/** The processes that keep a file, directory or mapping below `target` open. */
export async function holdersOf(target: string): Promise<readonly Holder[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const holders: Holder[] = []
  for (const pid of pids) {
    if (await holds(pid, target)) holders.push({ pid: Number(pid), name: await nameOf(pid) })
  }
  return holders
}

async function holds(pid: string, target: string): Promise<boolean> {
  const isBelow = (path: string): boolean => path === target || path.startsWith(`${target}/`)
  for (const link of ['cwd', 'root', 'exe']) {
    if (isBelow(await gone(readlink(`/proc/${pid}/${link}`), ''))) return true
  }
  for (const fd of await gone(readdir(`/proc/${pid}/fd`), [])) {
    if (isBelow(await gone(readlink(`/proc/${pid}/fd/${fd}`), ''))) return true
  }
  const maps = await gone(readFile(`/proc/${pid}/maps`, 'utf8'), '')
  return maps.split('\n').some((line) => isBelow(line.slice(line.indexOf('/'))))
}

async function nameOf(pid: string): Promise<string> {
  return (await gone(readFile(`/proc/${pid}/comm`, 'utf8'), 'unknown')).trim()
}

/** Processes end while we look: whatever of theirs vanished reads as `fallback`. */
async function gone<T>(reading: Promise<T>, fallback: T): Promise<T> {
  try {
    return await reading
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EACCES', 'EINVAL')) return fallback
    throw error
  }
}
