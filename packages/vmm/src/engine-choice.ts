import { chmod, chown, mkdir, mkdtemp, open, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import {
  AppError,
  errorText,
  isErrno,
  type Logger,
  silentLogger,
  UndoStack,
  waitFor,
  writeFileAtomic,
} from '@wrenn/base'
import type { Engine, EngineName, GuestKernel, Hardware, Vm, VmSpec } from './engine.js'
import { createQemuEngine } from './qemu/engine.js'

/** Any engine starts in well under a second; a machine that is emulated itself, or busy, needs more. */
const START_WITHIN_MS = 60_000
/** A guest with real KVM is up in under a second; where KVM only crawls, it never is. */
const KVM_PROBE_DEADLINE_MS = 8_000
/** An emulated guest takes about 4 s on an idle machine; nothing comes after it, so it may take its time. */
const TCG_PROBE_DEADLINE_MS = 300_000
/** A guest may also take this many times as long as its engine took to start: then the machine is slow, not the engine. */
const GUEST_PER_START = 10
const PROBE_MEMORY_MIB = 256
const KVM_DEVICE = '/dev/kvm'

/** The guest got as far as its first program: our initramfs says so, any other ends in the kernel's complaint about init. */
const UP_MARKER =
  /[Ww][Rr][Ee][Nn][Nn]-[Pp][Rr][Oo][Bb][Ee]-[Oo][Kk]|Kernel panic - not syncing: (?:VFS|No working init|No init found|Attempted to kill init)/

/** Kernel argument that makes Wrenn's initramfs print `wrenn-probe-ok` on the console and power off. */
export const PROBE_KERNEL_ARG = 'wrenn.probe=1'

/** An engine that may run here, and how to find out. */
export interface EngineCandidate {
  readonly engine: Engine
  /** How long the engine may take to start. */
  readonly startWithinMs: number
  /** How long its test guest may take to its first program, once the engine has started; on a slow machine longer. */
  readonly deadlineMs: number
  /** Why a probe is pointless, found without booting; never cached. */
  readonly obstacle?: () => Promise<string | undefined>
}

/** What became of one candidate: it works, it does not, or it was not tried because a better one works. */
export interface CandidateVerdict {
  readonly name: EngineName
  readonly ok: boolean
  /** A sentence for people. */
  readonly reason: string
}

/** What a choice needs: something to boot, a place for it, and who it is. */
export interface ChooseEngineOptions {
  /** Takes this engine without a probe (`WRENN_ENGINE`). */
  readonly override?: EngineName | undefined
  /** QEMU's program (`WRENN_QEMU`). @default 'qemu-system-x86_64' */
  readonly binary?: string | undefined
  readonly kernel: Pick<GuestKernel, 'kernelPath' | 'initrdPath'>
  /** Directory for the probe's files, which `uid` can reach; what is made there is removed again. */
  readonly scratchDir: string
  /** JSON file that keeps the verdicts until the host or QEMU changes. */
  readonly cachePath: string
  /** Who the probe's process is; needs no other right. */
  readonly uid: number
  readonly gid: number
  /** Best first. @default `defaultCandidates()` */
  readonly candidates?: readonly EngineCandidate[]
  /** Changes with each boot of the host, which makes verdicts stale. @default '/proc/sys/kernel/random/boot_id' */
  readonly bootIdPath?: string
  readonly logger?: Logger
}

/** The engine that runs this machine's guests from now on. */
export interface EngineChoice {
  readonly engine: Engine
  /** Why it is this engine. */
  readonly reason: string
  /** Every candidate in order, for `wrenn doctor`. */
  readonly candidates: readonly CandidateVerdict[]
}

/** What all candidates of this machine share. */
export interface CandidateOptions {
  readonly logger?: Logger | undefined
  /** QEMU's program. @default 'qemu-system-x86_64' */
  readonly binary?: string | undefined
}

/** The engines of this machine, best first. */
export function defaultCandidates({ logger = silentLogger, binary }: CandidateOptions = {}): EngineCandidate[] {
  return [
    {
      engine: createQemuEngine({ accelerator: 'kvm', binary, logger }),
      startWithinMs: START_WITHIN_MS,
      deadlineMs: KVM_PROBE_DEADLINE_MS,
      obstacle: kvmObstacle,
    },
    {
      engine: createQemuEngine({ accelerator: 'tcg', binary, logger }),
      startWithinMs: START_WITHIN_MS,
      deadlineMs: TCG_PROBE_DEADLINE_MS,
    },
  ]
}

/**
 * Chooses the best engine by booting a guest with each, because a /dev/kvm that opens proves nothing: on some hosts a
 * guest behind it never finishes booting. Verdicts are cached for this boot of the host.
 * @throws AppError `engine_failure` when no engine boots a guest, `invalid_config` for an override that is no candidate.
 */
export async function chooseEngine(options: ChooseEngineOptions): Promise<EngineChoice> {
  const candidates = options.candidates ?? defaultCandidates(options)
  if (options.override !== undefined) return overridden(candidates, options.override)
  const cache = await ProbeCache.read(options)
  const verdicts: CandidateVerdict[] = []
  let chosen: EngineCandidate | undefined
  for (const candidate of candidates) {
    const verdict = chosen ? notTried(candidate, chosen) : await judge(candidate, cache, options)
    verdicts.push(verdict)
    if (!chosen && verdict.ok) chosen = candidate
  }
  await cache.write()
  if (!chosen) {
    const reasons = verdicts.map(({ name, reason }) => `${name}: ${reason}`).join(' ')
    throw new AppError('engine_failure', `No engine can run a guest on this machine. ${reasons}`)
  }
  const { name } = chosen.engine
  const reason = verdicts.find((verdict) => verdict.name === name)?.reason ?? ''
  return { engine: chosen.engine, reason, candidates: verdicts }
}

/** What is known about this machine's engines without booting anything. */
export interface RecalledEngine {
  /** `undefined` when every candidate is ruled out. */
  readonly name: EngineName | undefined
  /** Why it is this engine, or why there is none. */
  readonly reason: string
  /** False when nothing booted with it since the host started: the next start finds out. */
  readonly isProven: boolean
  readonly candidates: readonly CandidateVerdict[]
}

/**
 * What `chooseEngine` chose since the host started, else what it will try first. Boots and writes nothing, so it needs no
 * kernel.
 * @throws the system's error when the file of verdicts is there and cannot be read
 */
export async function recallEngine(
  options: Pick<ChooseEngineOptions, 'override' | 'binary' | 'cachePath' | 'candidates' | 'bootIdPath'>,
): Promise<RecalledEngine> {
  const candidates = options.candidates ?? defaultCandidates({ binary: options.binary })
  if (options.override !== undefined) {
    const { engine, ...choice } = overridden(candidates, options.override)
    return { name: engine.name, isProven: true, ...choice }
  }
  const known = await verdictsOfThisBoot(options)
  const verdicts: CandidateVerdict[] = []
  let first: (CandidateVerdict & { readonly isProven: boolean }) | undefined
  for (const candidate of candidates) {
    const { name } = candidate.engine
    if (first) {
      const reason = first.isProven ? `${first.name} works and is better.` : `${first.name} comes first.`
      verdicts.push({ name, ok: false, reason: `Not tried: ${reason}` })
      continue
    }
    const verdict = (await ruledOut(candidate)) ?? (await recalled(candidate, known))
    if (verdict?.ok !== false) first = { ...(verdict ?? notYetTried(name)), isProven: verdict !== undefined }
    verdicts.push(verdict ?? notYetTried(name))
  }
  if (first) return { name: first.name, reason: first.reason, isProven: first.isProven, candidates: verdicts }
  const reason = verdicts.map((verdict) => `${verdict.name}: ${verdict.reason}`).join(' ')
  return { name: undefined, reason, isProven: false, candidates: verdicts }
}

function notYetTried(name: EngineName): CandidateVerdict {
  return {
    name,
    ok: false,
    reason: 'Not tried since this machine started; a start of the platform boots a tiny guest with it.',
  }
}

async function verdictsOfThisBoot(
  options: Pick<ChooseEngineOptions, 'cachePath' | 'bootIdPath'>,
): Promise<readonly CachedVerdict[]> {
  const text = await readFile(options.cachePath, 'utf8').catch((error: unknown) => {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return '' // nothing was started in this directory yet
    throw error
  })
  const file = parseCache(text)
  return file?.bootId === (await bootIdOf(options)) ? file.verdicts : []
}

async function ruledOut(candidate: EngineCandidate): Promise<CandidateVerdict | undefined> {
  const { name } = candidate.engine
  const obstacle = await candidate.obstacle?.()
  return obstacle === undefined ? undefined : { name, ok: false, reason: obstacle }
}

async function recalled(
  { engine }: EngineCandidate,
  known: readonly CachedVerdict[],
): Promise<CandidateVerdict | undefined> {
  try {
    const version = await engine.version()
    const found = known.find((verdict) => verdict.name === engine.name && verdict.version === version)
    return found && { name: engine.name, ok: found.ok, reason: found.reason }
  } catch (error) {
    return { name: engine.name, ok: false, reason: errorText(error) }
  }
}

function overridden(candidates: readonly EngineCandidate[], name: EngineName): EngineChoice {
  const chosen = candidates.find((candidate) => candidate.engine.name === name)
  if (!chosen) {
    const known = candidates.map((candidate) => candidate.engine.name).join(', ')
    throw new AppError('invalid_config', `There is no engine ${name} here; WRENN_ENGINE may be one of ${known}.`)
  }
  const reason = 'Set by hand, not probed.'
  const verdicts = candidates.map(({ engine }) =>
    engine === chosen.engine
      ? { name, ok: true, reason }
      : { name: engine.name, ok: false, reason: 'Not tried: the engine is set by hand.' },
  )
  return { engine: chosen.engine, reason, candidates: verdicts }
}

function notTried({ engine }: EngineCandidate, better: EngineCandidate): CandidateVerdict {
  return { name: engine.name, ok: false, reason: `Not tried: ${better.engine.name} works and is better.` }
}

async function judge(
  candidate: EngineCandidate,
  cache: ProbeCache,
  options: ChooseEngineOptions,
): Promise<CandidateVerdict> {
  const { name } = candidate.engine
  const obstacle = await ruledOut(candidate)
  if (obstacle) return obstacle
  let version: string
  try {
    version = await candidate.engine.version()
  } catch (error) {
    return { name, ok: false, reason: errorText(error) }
  }
  const known = cache.get(name, version)
  if (known) return known
  const verdict = await probe(candidate, options)
  options.logger?.info({ engine: name, ok: verdict.ok, reason: verdict.reason }, 'engine.probed')
  cache.put(version, verdict)
  return verdict
}

async function probe(candidate: EngineCandidate, options: ChooseEngineOptions): Promise<CandidateVerdict> {
  const { name } = candidate.engine
  const begin = performance.now()
  try {
    await using undo = new UndoStack()
    const spec = await probeSpec(await candidate.engine.newHardware(), options, undo)
    const vm = await bootInTime(candidate, spec, undo)
    const startMs = performance.now() - begin
    await upInTime(vm, Math.max(candidate.deadlineMs, startMs * GUEST_PER_START))
    const seconds = ((performance.now() - begin) / 1000).toFixed(1)
    return { name, ok: true, reason: `A test guest was up after ${seconds} s.` }
  } catch (error) {
    return { name, ok: false, reason: `A test guest did not come up: ${errorText(error)}` }
  }
}

/** Does not wait for a boot that is late: it is killed whenever it does arrive. */
async function bootInTime({ engine, startWithinMs }: EngineCandidate, spec: VmSpec, undo: UndoStack): Promise<Vm> {
  const booting = engine.boot(spec)
  const timer = new AbortController()
  const late = delay(startWithinMs, undefined, { signal: timer.signal }).then(() => {
    void booting.then(
      (vm) => vm.kill(),
      () => undefined, // it never started
    )
    throw new AppError('timeout', `the engine did not start within ${startWithinMs} ms.`)
  })
  late.catch(() => {}) // the race reports it
  try {
    const vm = await Promise.race([booting, late])
    await undo.defer(() => vm.kill())
    return vm
  } finally {
    timer.abort()
  }
}

async function upInTime(vm: Vm, timeoutMs: number): Promise<void> {
  let ended: string | undefined
  void vm.exited.then((exit) => {
    ended = exit.message
  })
  const probeConsole = async (): Promise<true | undefined> => {
    const over = ended
    if (UP_MARKER.test(await vm.consoleTail())) return true
    if (over !== undefined) throw new AppError('engine_failure', over)
    return undefined
  }
  const rounded = Math.round(timeoutMs)
  await waitFor(probeConsole, { timeoutMs: rounded, intervalMs: 50, what: 'its kernel to reach its first program' })
}

/** The smallest guest: no network, an empty disk. */
async function probeSpec(hardware: Hardware, options: ChooseEngineOptions, undo: UndoStack): Promise<VmSpec> {
  const { uid, gid } = options
  await mkdir(options.scratchDir, { recursive: true })
  const folder = await mkdtemp(join(options.scratchDir, 'probe-'))
  await undo.defer(() => rm(folder, { recursive: true, force: true }))
  await chmod(folder, 0o700)
  await chown(folder, uid, gid)
  const diskPath = join(folder, 'disk.raw')
  await using disk = await open(diskPath, 'wx', 0o600)
  await disk.truncate(1024 * 1024)
  await disk.chown(uid, gid)
  return {
    id: 'wrenn-probe',
    hardware,
    vcpus: 1,
    memoryMib: PROBE_MEMORY_MIB,
    kernel: { ...options.kernel, args: [PROBE_KERNEL_ARG] },
    layers: [],
    disk: { path: diskPath },
    memoryPath: join(folder, 'mem'),
    network: undefined,
    runDir: folder,
    confinement: { uid, gid, cgroups: [] },
  }
}

/** Why guests, which do not run as root, cannot use /dev/kvm; `undefined` when nothing stands in the way. */
export async function kvmObstacle(): Promise<string | undefined> {
  const device = await stat(KVM_DEVICE).catch(() => undefined)
  if (!device)
    return `There is no ${KVM_DEVICE}: the CPU's virtualization is off, or this machine is a VM without nesting.`
  const forGroup = device.gid !== 0 && (device.mode & 0o060) === 0o060
  const forAll = (device.mode & 0o006) === 0o006
  if (forGroup || forAll) return undefined
  return `${KVM_DEVICE} is for root alone and guests do not run as root: chgrp kvm ${KVM_DEVICE} && chmod 660 ${KVM_DEVICE}.`
}

interface CachedVerdict extends CandidateVerdict {
  readonly version: string
}

interface CacheFile {
  readonly bootId: string
  readonly kernelPath: string
  readonly initrdPath: string
  readonly verdicts: readonly CachedVerdict[]
}

/** Verdicts of this boot of the host, for one kernel. */
class ProbeCache {
  readonly #path: string
  readonly #key: Omit<CacheFile, 'verdicts'>
  readonly #verdicts: Map<EngineName, CachedVerdict>
  #changed = false

  private constructor(path: string, key: Omit<CacheFile, 'verdicts'>, verdicts: readonly CachedVerdict[]) {
    this.#path = path
    this.#key = key
    this.#verdicts = new Map(verdicts.map((verdict) => [verdict.name, verdict]))
  }

  static async read(options: ChooseEngineOptions): Promise<ProbeCache> {
    const bootId = await bootIdOf(options)
    const key = { bootId, ...options.kernel }
    const text = await readFile(options.cachePath, 'utf8').catch(() => '')
    const file = parseCache(text)
    const valid = file?.bootId === bootId && sameKernel(file, options)
    return new ProbeCache(options.cachePath, key, valid ? file.verdicts : [])
  }

  get(name: EngineName, version: string): CandidateVerdict | undefined {
    const known = this.#verdicts.get(name)
    return known?.version === version ? { name, ok: known.ok, reason: known.reason } : undefined
  }

  put(version: string, verdict: CandidateVerdict): void {
    // An emulated guest fails only for passing reasons: a full disk, a machine under load.
    if (!verdict.ok && verdict.name === 'qemu-tcg') return
    this.#verdicts.set(verdict.name, { ...verdict, version })
    this.#changed = true
  }

  async write(): Promise<void> {
    if (!this.#changed) return
    const file: CacheFile = { ...this.#key, verdicts: [...this.#verdicts.values()] }
    await writeFileAtomic(this.#path, `${JSON.stringify(file, undefined, 2)}\n`)
  }
}

async function bootIdOf({ bootIdPath }: Pick<ChooseEngineOptions, 'bootIdPath'>): Promise<string> {
  return (await readFile(bootIdPath ?? '/proc/sys/kernel/random/boot_id', 'utf8')).trim()
}

function sameKernel(file: CacheFile, options: ChooseEngineOptions): boolean {
  return file.kernelPath === options.kernel.kernelPath && file.initrdPath === options.kernel.initrdPath
}

/** A file that is damaged, or of another version, only costs a probe. */
function parseCache(text: string): CacheFile | undefined {
  try {
    const file: unknown = JSON.parse(text)
    if (typeof file !== 'object' || file === null || !('verdicts' in file) || !Array.isArray(file.verdicts))
      return undefined
    return file as CacheFile // we wrote it, and every field read from it is compared
  } catch {
    return undefined
  }
}
