/** What runs a guest, best first in `docs/architecture.md`. */
export type EngineName = 'firecracker' | 'qemu-kvm' | 'qemu-tcg' | 'fake'

/** A read-only block device shared by many capsules. The guest finds it by `role` (its serial), never by letter. */
export interface Layer {
  readonly role: 'base' | 'agent'
  /** Absolute path of the content-addressed file. */
  readonly path: string
}

/** The capsule's own block device; the guest finds it under the serial `data`. */
export interface WritableDisk {
  readonly path: string
}

/** A prepared network namespace with a tap owned by the capsule's uid. */
export interface NetworkSlot {
  readonly namespace: string
  readonly tap: string
  readonly mac: string
}

/** Who the engine's process is on the host. */
export interface Confinement {
  readonly uid: number
  readonly gid: number
  /** cgroup directories (one for v2, one per controller for v1) whose `cgroup.procs` the process joins before it starts. */
  readonly cgroups: readonly string[]
}

/** What a fresh guest boots. A restored one has its kernel in RAM and uses `kernelPath` only to get the same devices. */
export interface GuestKernel {
  readonly kernelPath: string
  /** Wrenn's initramfs, which finds layers and disk by their serials and mounts them. */
  readonly initrdPath: string
  /** Extra kernel arguments, after the engine's own. */
  readonly args: readonly string[]
}

/**
 * What a guest sees of its machine, by names that mean the same for ever. A saved state loads into exactly the hardware that it
 * was saved on, and into every version of an engine that has it.
 */
export interface Hardware {
  /** Versioned machine type, such as `pc-q35-7.2`. */
  readonly machine: string
  /** CPU model: one of the engine's own, such as `tcg-1`, or one of QEMU's. */
  readonly cpu: string
  /** Number of the layout of devices. */
  readonly layout: number
}

/** Everything an engine needs to run one guest. All files belong to the caller, who also removes them. */
export interface VmSpec {
  /** Capsule id (or build id): part of every host resource's name. */
  readonly id: string
  /** Of a new guest what `Engine.newHardware` says, of a restored one what it was saved on. */
  readonly hardware: Hardware
  readonly vcpus: number
  readonly memoryMib: number
  readonly kernel: GuestKernel
  readonly layers: readonly Layer[]
  readonly disk: WritableDisk
  /** The guest's RAM: a file in the reflink pool. Made by `boot`, must exist for `restore`. */
  readonly memoryPath: string
  readonly network: NetworkSlot | undefined
  /** Directory for sockets, console log and pid file; owned by `confinement.uid`. */
  readonly runDir: string
  readonly confinement: Confinement
}

/** Plain JSON that the host agent journals and gives back to `Engine.adopt` after a restart of its own. */
export interface VmRecord {
  readonly engine: EngineName
  /** Absent in records from before guests had it. */
  readonly hardware?: Hardware
  readonly id: string
  readonly pid: number
  /** Start time of the process in clock ticks since boot (field 22 of /proc/pid/stat): guards against pid reuse. */
  readonly pidStartTicks: string
  readonly runDir: string
  readonly cgroups: readonly string[]
}

/** `paused` also while the host's disk is full: the engine then stops the guest instead of failing its writes. */
export type VmState = 'running' | 'paused' | 'exited'

/**
 * By what the end is judged is in `qemu/exit-cause.ts`; `killed` is an end from outside, on request or by somebody on the
 * host.
 */
export type VmExitCause =
  | 'guest_shutdown'
  | 'guest_panic'
  | 'guest_reset'
  | 'oom_killed'
  | 'killed'
  | 'engine_failure'
  | 'unknown'

/** How a guest ended, noticed at once. */
export interface VmExit {
  readonly cause: VmExitCause
  /** A sentence for people, with what the console said last where that explains it. */
  readonly message: string
  /** Of the engine's process; `undefined` after a signal, and for one that was not our child. */
  readonly exitCode: number | undefined
  readonly signal: string | undefined
  readonly consoleTail: string
  /** Unix time in milliseconds. */
  readonly atMs: number
}

/** What the engine's process takes of the host; of the guest's own view the guest agent tells. */
export interface VmStats {
  /** CPU time of the engine's process, all threads. */
  readonly cpuNs: bigint
  /** Resident memory; pages of the RAM file that the process has touched count, shared ones too. */
  readonly rssBytes: number
}

/** A running (or stopped-vCPU) guest. The handle is only a view: the guest outlives it and this process. */
export interface Vm {
  readonly id: string
  readonly record: VmRecord
  /** Resolves once, when the engine's process is gone; never rejects. */
  readonly exited: Promise<VmExit>
  /** `exited` as soon as the guest has ended, also while its process still waits to be collected. */
  status(): Promise<VmState>
  /** Stops the vCPUs; idempotent. */
  pause(): Promise<void>
  /** Lets the vCPUs run; idempotent. */
  resume(): Promise<void>
  /**
   * Writes device state to `statePath` (about 0.4 MB); RAM is already in its file. The guest must be paused and stays so.
   * The file is complete and closed when this returns; it is not fsynced.
   */
  save(statePath: string): Promise<SavedState>
  /** Asks the guest to give back memory until it has `mib` left. */
  setBalloonMib(mib: number): Promise<void>
  /** MiB the guest has now, with the balloon taken off. */
  balloonMib(): Promise<number>
  /** @throws AppError `guest_died` when the process is gone */
  stats(): Promise<VmStats>
  /** The end of what the guest wrote to its console. */
  consoleTail(maxBytes?: number): Promise<string>
  /** Ends the guest at once (SIGKILL ladder) and waits until its process is gone; idempotent. */
  kill(): Promise<VmExit>
  /** Drops this view (closes sockets) and leaves the guest running. */
  detach(): Promise<void>
}

/** Facts of a save, by which a later restore can prove that it reads the same. */
export interface SavedState {
  readonly bytes: number
  /** From the call until the file was closed. */
  readonly ms: number
  /** Of the device state as it came from the engine, in hexadecimal. */
  readonly sha256: string
}

/** From what and into which state a guest comes back. */
export interface RestoreOptions {
  /** Device state from `Vm.save`. */
  readonly statePath: string
  /** Leave the vCPUs stopped. @default false */
  readonly paused?: boolean
}

/**
 * Runs guests. One conformance suite (`@wrenn/testkit`) runs against every engine that the machine has.
 *
 * @remarks Errors are `AppError`s: `engine_failure` when the engine does not come up, `state_not_loadable` when it refuses a device
 * state, with the end of its own log.
 */
export interface Engine {
  readonly name: EngineName
  /** What is installed now, such as `qemu 7.2.22`: for people, and to notice that it was replaced. States do not depend on it. */
  version(): Promise<string>
  /** The hardware for a new guest: the newest that states are proven to move between versions with. */
  newHardware(): Promise<Hardware>
  /** Why this engine, as it is installed now, cannot load a state of this hardware; `undefined` when it can. */
  obstacle(hardware: Hardware): Promise<string | undefined>
  /** Boots a fresh guest; returns when the engine runs it, long before the guest is up. */
  boot(spec: VmSpec): Promise<Vm>
  /** Starts from a saved state and `spec.memoryPath` (a clone of the saved RAM). */
  restore(spec: VmSpec, options: RestoreOptions): Promise<Vm>
  /** Takes up a guest started by an earlier process; `undefined` when it is no longer there. */
  adopt(record: VmRecord): Promise<Vm | undefined>
}
