import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { errorText } from '@wrenn/base'
import { listMounts, type Mount } from '../mounts.js'

/** Those whose limits guests get. CPU time of version 1 is counted by a fourth, `cpuacct`, which limits nothing. */
export const controllers = ['memory', 'cpu', 'pids'] as const
/** A controller by the kernel's name (cgroups(7)). */
export type Controller = (typeof controllers)[number]

/** Where groups are made. With version 1 each controller has a tree of its own, and `cpuacct` may have another one. */
export interface Hierarchy {
  readonly version: 1 | 2
  /** Our parent directory per controller; the same one for all with version 2. */
  readonly parents: ReadonlyMap<Controller | 'cpuacct', string>
  /**
   * Our parents in trees without controllers, by which a service manager knows the processes of a service or login session and
   * ends them with it. With version 2 that tree is the one of the controllers.
   */
  readonly tracking: readonly string[]
  /** Why a controller cannot be used. */
  readonly missing: ReadonlyMap<Controller, string>
}

/** Which controllers this machine offers, without making anything. */
export async function findControllers(): Promise<{ readonly version: 1 | 2; readonly found: readonly Controller[] }> {
  const mounts = await listMounts()
  const unified = mounts.find(({ type }) => type === 'cgroup2')
  const available = unified ? await words(join(unified.target, 'cgroup.controllers')) : []
  const isUnified = controllers.some((controller) => available.includes(controller))
  const separate = mounts.filter(({ type }) => type === 'cgroup').flatMap(({ options }) => options)
  const offered = isUnified ? available : separate
  return { version: isUnified ? 2 : 1, found: controllers.filter((controller) => offered.includes(controller)) }
}

/** Finds the machine's controllers, prefers version 2 where it has any of them, and makes our parent groups. */
export async function openHierarchy(name: string, mounts: readonly Mount[]): Promise<Hierarchy> {
  const unified = mounts.find(({ type }) => type === 'cgroup2')
  const available = unified ? await words(join(unified.target, 'cgroup.controllers')) : []
  if (unified && controllers.some((controller) => available.includes(controller))) {
    return await openUnified(unified, available, name)
  }
  return await openSeparate(mounts, name)
}

async function openUnified(mount: Mount, available: readonly string[], name: string): Promise<Hierarchy> {
  const parent = join(mount.target, name)
  const missing = new Map<Controller, string>()
  await mkdir(parent, { recursive: true })
  for (const controller of controllers) {
    const problem = available.includes(controller)
      ? await enable(controller, [mount.target, parent])
      : `not in ${mount.target}/cgroup.controllers`
    if (problem !== undefined) missing.set(controller, problem)
  }
  const usable = controllers.filter((controller) => !missing.has(controller))
  // Without any controller the group still says which processes belong together.
  const keys = usable.length > 0 ? usable : (['cpu'] as const)
  return {
    version: 2,
    parents: new Map([...keys, 'cpuacct' as const].map((key) => [key, parent])),
    tracking: [],
    missing,
  }
}

/** A controller reaches a group's children only when each group above hands it down. */
async function enable(controller: Controller, groups: readonly string[]): Promise<string | undefined> {
  try {
    for (const group of groups) await writeFile(join(group, 'cgroup.subtree_control'), `+${controller}`)
    return undefined
  } catch (error) {
    return errorText(error)
  }
}

async function openSeparate(mounts: readonly Mount[], name: string): Promise<Hierarchy> {
  const parents = new Map<Controller | 'cpuacct', string>()
  const missing = new Map<Controller, string>()
  for (const controller of [...controllers, 'cpuacct'] as const) {
    const mount = mounts.find(({ type, options }) => type === 'cgroup' && options.includes(controller))
    const problem = mount ? await tryMkdir(join(mount.target, name)) : 'no cgroup hierarchy has it'
    if (mount && problem === undefined) parents.set(controller, join(mount.target, name))
    else if (controller !== 'cpuacct') missing.set(controller, problem ?? '')
  }
  return { version: 1, parents, tracking: await openTracking(mounts, name), missing }
}

/** systemd has a named tree of version 1, and beside it version 2 without controllers where it runs in its hybrid mode. */
async function openTracking(mounts: readonly Mount[], name: string): Promise<readonly string[]> {
  const trees = mounts.filter(
    ({ type, options }) => type === 'cgroup2' || (type === 'cgroup' && options.some((option) => /^name=/.test(option))),
  )
  const parents = [...new Set(trees.map(({ target }) => join(target, name)))]
  const problems = await Promise.all(parents.map(tryMkdir))
  return parents.filter((_, at) => problems[at] === undefined)
}

async function tryMkdir(path: string): Promise<string | undefined> {
  try {
    await mkdir(path, { recursive: true })
    return undefined
  } catch (error) {
    return errorText(error)
  }
}

async function words(path: string): Promise<readonly string[]> {
  return (await readFile(path, 'utf8')).split(/\s+/).filter((word) => word !== '')
}
