import { constants } from 'node:fs'
import { access, readFile, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { errorText, isErrno } from '@wrenn/base'
import { kvmObstacle } from '@wrenn/vmm'
import { controllers, findControllers } from '../cgroups/index.js'
import { runForResult } from '../exec.js'
import { canClone, fileSystemOf } from '../pool/index.js'
import type { DoctorCheck } from './report.js'

const GIB = 2 ** 30

/** The engine that the machine's owner gets; the caller knows. */
export interface EngineChoice {
  /** `undefined` when no engine can run here. */
  readonly name: string | undefined
  /** Why this one, or why none. */
  readonly reason: string
  /** Whether it booted a guest since the machine started. */
  readonly isProven: boolean
  /** What stands in the way of the best engine, when this is not it. */
  readonly obstacle?: string | undefined
}

/** The kernel that guests boot. */
export interface GuestKernel {
  /** As `uname -r` says it. */
  readonly kernelVersion: string
  readonly package: string
  readonly isPreferred: boolean
  /** A sentence: why this one. */
  readonly reason: string
}

/** The Node.js that runs the agent in guests. */
export interface GuestNode {
  readonly version: string
  /** A sentence: why this one. */
  readonly reason: string
}

/** A program of the host and the Debian package that brings it. */
export interface HostProgram {
  readonly program: string
  readonly debianPackage: string
  /** Without it everything works, only less tidily. */
  readonly isOptional?: boolean
}

function qemuProgram(): string {
  return process.arch === 'arm64' ? 'qemu-system-aarch64' : 'qemu-system-x86_64'
}

/** @param unreadable why the choice that was made cannot be read */
export function checkEngine(engine: EngineChoice | undefined, unreadable?: string): DoctorCheck {
  const title = 'Engine'
  if (unreadable !== undefined) {
    const detail = `The choice cannot be read: ${unreadable}.`
    return { id: 'engine', title, status: 'warn', detail, fix: 'Run this with sudo.' }
  }
  if (!engine)
    return {
      id: 'engine',
      title,
      status: 'warn',
      detail: 'Not chosen yet; the first start boots a tiny guest to choose.',
    }
  if (engine.name === undefined) {
    const detail = `None can run a guest here. ${engine.reason}`
    return { id: 'engine', title, status: 'fail', detail, fix: 'See the packages and QEMU below.' }
  }
  const detail = `${engine.name}${engine.isProven ? '' : ' is expected'}: ${engine.reason}`
  if (engine.name !== 'qemu-tcg') return { id: 'engine', title, status: engine.isProven ? 'ok' : 'warn', detail }
  const gain =
    'With hardware virtualization (bare metal, or nested virtualization switched on) guests run at nearly native speed.'
  const fix = engine.obstacle === undefined ? gain : `${engine.obstacle} ${gain}`
  return { id: 'engine', title, status: 'warn', detail, fix }
}

/**
 * Warns of a kernel that is not the preferred one: without its VMGENID driver only our agent reseeds the random generator of
 * a restored guest, a moment later.
 */
export function checkGuestKernel(kernel: GuestKernel | undefined): DoctorCheck {
  const base = { id: 'guest-kernel', title: 'Guest kernel' }
  if (kernel === undefined)
    return { ...base, status: 'ok', detail: 'Not in sight before the platform has started here.' }
  const detail = `${kernel.kernelVersion}. ${kernel.reason}`
  if (kernel.isPreferred) return { ...base, status: 'ok', detail }
  const fix = "Name Debian's security archive in apt's sources; the next start of the platform takes the newer kernel."
  return { ...base, status: 'warn', detail, fix }
}

/** Without one that works nothing is built, and the host agent's log says why. */
export function checkGuestNode(node: GuestNode | undefined): DoctorCheck {
  const detail = node ? `${node.version}. ${node.reason}` : 'Not in sight before the platform has started here.'
  return { id: 'guest-node', title: 'Node.js of guests', status: 'ok', detail }
}

/**
 * Warns at most: without KVM guests run too. That it can be opened proves nothing; the engine check says whether a guest
 * boots on it.
 */
export async function checkKvm(): Promise<DoctorCheck> {
  const base = { id: 'kvm', title: 'Hardware virtualization' }
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK)
    const obstacle = await kvmObstacle()
    if (obstacle !== undefined) return { ...base, status: 'warn', detail: obstacle }
    return { ...base, status: 'ok', detail: '/dev/kvm is there; whether guests really boot on it is the engine check.' }
  } catch (error) {
    const flags = /\b(vmx|svm)\b/.test(await readFile('/proc/cpuinfo', 'utf8'))
    const detail = isErrno(error, 'ENOENT') ? '/dev/kvm is missing.' : `/dev/kvm: ${errorText(error)}.`
    const fix = flags
      ? 'modprobe kvm_intel || modprobe kvm_amd'
      : 'Switch virtualization on in the firmware, or nested virtualization at the provider.'
    return { ...base, status: 'warn', detail, fix }
  }
}

/** @param program of `WRENN_QEMU` */
export async function checkQemu(program = qemuProgram()): Promise<DoctorCheck> {
  const base = { id: 'qemu', title: 'QEMU' }
  const version = await outputOf(program, ['--version'])
  if (version === undefined)
    return { ...base, status: 'fail', detail: `${program} does not run.`, fix: 'See packages.' }
  return { ...base, status: 'ok', detail: version.split('\n')[0] ?? version }
}

/** Fails for a missing program without which something does not work, and names all packages in one command to install. */
export async function checkPackages(programs: readonly HostProgram[]): Promise<DoctorCheck> {
  const base = { id: 'packages', title: 'Debian packages' }
  const present = await Promise.all(programs.map(async ({ program }) => await isInstalled(program)))
  const missing = programs.filter((_, at) => !present[at])
  if (missing.length === 0) return { ...base, status: 'ok', detail: `All ${programs.length} programs are installed.` }
  const names = [...new Set(missing.map(({ debianPackage }) => debianPackage))].join(' ')
  const fix = `apt install --no-install-recommends ${names}`
  const status = missing.every(({ isOptional }) => isOptional) ? 'warn' : 'fail'
  return { ...base, status, detail: `Missing: ${names.replaceAll(' ', ', ')}.`, fix }
}

/** Whether the directory's own disk clones files, and what that costs on this file system. */
export async function checkReflink(dir: string): Promise<DoctorCheck> {
  const base = { id: 'reflink', title: 'Cloning file system' }
  const place = await nearestExisting(`${dir}/pool`)
  const filesystem = await fileSystemOf(place)
  if (!(await canClone(place))) {
    const detail = `${place} is on ${filesystem}, which does not clone; the pool is a btrfs image ${dir}/pool.img.`
    return { ...base, status: 'warn', detail, fix: `Mount a btrfs disk at ${dir}/pool.` }
  }
  if (filesystem !== 'xfs') return { ...base, status: 'ok', detail: `${place} is on ${filesystem} and clones files.` }
  const detail = `${place} is on XFS: an idle capsule writes about 47 MB per 30 s back to disk, on btrfs 0.9 MB.`
  return { ...base, status: 'warn', detail, fix: `Mount a btrfs disk at ${dir}/pool.` }
}

/** Warns of each controller whose limits cannot be applied. */
export async function checkCgroups(): Promise<DoctorCheck> {
  const base = { id: 'cgroups', title: 'Resource limits' }
  const { version, found } = await findControllers()
  const missing = controllers.filter((controller) => !found.includes(controller))
  const detail = `cgroup version ${version} with ${found.join(', ') || 'no controllers'}.`
  if (missing.length === 0) return { ...base, status: 'ok', detail }
  const fix = `Enable ${missing.join(', ')} (kernel command line: cgroup_enable=memory systemd.unified_cgroup_hierarchy=1); until then these limits are not applied.`
  return { ...base, status: 'warn', detail, fix }
}

/** Never worse than ok: no engine of today needs it. It reads /proc/kallsyms, because to try it would need a privilege. */
export async function checkUserfaultfd(): Promise<DoctorCheck> {
  const base = { id: 'userfaultfd', title: 'userfaultfd' }
  const symbols = await readFile('/proc/kallsyms', 'utf8').catch(() => '')
  if (/ \S*sys_userfaultfd$/m.test(symbols)) return { ...base, status: 'ok', detail: 'The kernel has it.' }
  return {
    ...base,
    status: 'ok',
    detail: 'The kernel does not show it; only engines that load memory on demand want it.',
  }
}

/** By MemAvailable: ok from 2 GiB on, a warning from 768 MiB on, below that a failure. */
export async function checkMemory(): Promise<DoctorCheck> {
  const base = { id: 'memory', title: 'Memory' }
  const text = await readFile('/proc/meminfo', 'utf8')
  const bytes = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? 0) * 1024
  const detail = `${gib(bytes('MemAvailable'))} of ${gib(bytes('MemTotal'))} available.`
  if (bytes('MemAvailable') >= 2 * GIB) return { ...base, status: 'ok', detail }
  const status = bytes('MemAvailable') >= 0.75 * GIB ? 'warn' : 'fail'
  return {
    ...base,
    status,
    detail,
    fix: 'A capsule of 512 MiB needs about 900 MiB; free some memory or use a larger machine.',
  }
}

/** By the space that others than root have: ok from 20 GiB on, a warning from 4 GiB on, below that a failure. */
export async function checkDisk(dir: string): Promise<DoctorCheck> {
  const base = { id: 'disk', title: 'Disk space' }
  const { bavail, bsize } = await statfs(await nearestExisting(dir))
  const detail = `${gib(bavail * bsize)} free for ${dir}.`
  if (bavail * bsize >= 20 * GIB) return { ...base, status: 'ok', detail }
  const status = bavail * bsize >= 4 * GIB ? 'warn' : 'fail'
  return { ...base, status, detail, fix: 'Free some, or set WRENN_DIR to a larger disk; 20 GiB are comfortable.' }
}

/** Guest RAM is written back like any file; on a machine that only runs capsules it may stay dirty for longer. */
export async function checkWriteBack(): Promise<DoctorCheck> {
  const seconds = Number(await readFile('/proc/sys/vm/dirty_expire_centisecs', 'utf8')) / 100
  const base = { id: 'write-back', title: 'Write-back of guest memory', status: 'ok' as const }
  const detail = `Changed guest memory is written to disk after ${seconds} s.`
  if (seconds >= 120) return { ...base, detail }
  return { ...base, detail, fix: 'On a dedicated host `sysctl -w vm.dirty_expire_centisecs=30000` writes less.' }
}

/** Whether a program is on the tools' own path, which has sbin, whatever the PATH of who asks. */
export async function isInstalled(program: string): Promise<boolean> {
  return (await runForResult('sh', ['-c', `command -v ${program}`])).exitCode === 0
}

async function outputOf(program: string, args: readonly string[]): Promise<string | undefined> {
  if (!(await isInstalled(program))) return undefined
  const { exitCode, stdout } = await runForResult(program, args)
  return exitCode === 0 ? stdout.trim() : undefined
}

async function nearestExisting(path: string): Promise<string> {
  try {
    await stat(path)
    return path
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    return await nearestExisting(dirname(path))
  }
}

function gib(bytes: number): string {
  return `${(bytes / GIB).toFixed(1)} GiB`
}
