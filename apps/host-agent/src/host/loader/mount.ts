import { spawnSync } from 'node:child_process'
import { openSync } from 'node:fs'
import { stat, writeFile } from 'node:fs/promises'

/** What mounts of loaders are told apart by, for people. */
const SOURCE = 'wrenn-memory'

/** Mounts a file over itself: it has the place that everybody knows. @returns /dev/fuse, from which its requests come */
export function mountFile(target: string): number {
  const device = openSync('/dev/fuse', 'r+')
  const options = 'fd=3,rootmode=100600,user_id=0,group_id=0,allow_other,default_permissions,nosuid,nodev'
  const { status, stderr } = spawnSync('mount', ['-i', '-t', 'fuse', '-o', options, SOURCE, target], {
    stdio: ['ignore', 'ignore', 'pipe', device],
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`mount ended with ${status}: ${stderr.trim()}`)
  return device
}

/** The kernel lets such a file have 1 % of what may wait to be written: a guest's memory is more than that. */
export async function allowWriteBack(target: string): Promise<void> {
  const { dev } = await stat(target)
  const minor = (dev & 0xff) | ((dev >>> 12) & ~0xff) // makedev(3)
  for (const [name, value] of [
    ['strict_limit', '0'],
    ['max_ratio', '100'],
  ] as const) {
    await writeFile(`/sys/class/bdi/0:${minor}/${name}`, value).catch(() => {}) // it is slower then
  }
}
