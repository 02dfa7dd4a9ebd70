import type { Engine, GuestKernel } from '@wrenn/vmm'
import type { Learned } from '../host/names/index.js'
import type { GuestTraffic } from '../host/network/index.js'
import type { Extents } from './state/blocks.js'
import type { EgressPolicy, Refusal } from './types.js'

/** A prepared place in the host's network for one guest. */
export interface Slot {
  readonly index: number
  readonly namespace: string
  readonly tap: string
  readonly mac: string
  readonly uid: number
  readonly gid: number
  /** Where the host reaches the guest. */
  readonly guestAddress: string
}

/** The prepared places of the host's network. A slot belongs to one guest at a time. */
export interface SlotPool {
  /**
   * Gives a clean slot in which nothing may go out until a policy is applied. The VM's id is written beside it, so that a
   * later start knows whose it is.
   */
  acquire(vmId: string): Promise<Slot>
  /** Gives the slot back, clean; idempotent. One that is another VM's by now is left alone. */
  release(index: number, vmId: string): Promise<void>
  /** Names who uses the slot from now on, for a VM that leaves the hot pool. */
  rename(index: number, owner: string): Promise<void>
  /** @throws AppError `invalid_request` naming what of a policy cannot be kept */
  checkPolicy(policy: EgressPolicy): void
  /** Replaces what the slot may reach, connections that the new policy forbids included. */
  applyPolicy(index: number, policy: EgressPolicy): Promise<void>
  /** What was refused by name of who is in the slot, the newest first. */
  refused(index: number): Promise<readonly Refusal[]>
  /** What who is in the slot has used since its policy learns. */
  learned(index: number): Promise<Learned>
  /** Names the guest in a slot like no other one, before and after; `undefined` when the slot is gone. */
  guestId(index: number): string | undefined
  /** What guests received and sent whose slots are gone, until `noted`. */
  ended(): readonly GuestTraffic[]
  /** Somebody keeps what these guests received and sent. */
  noted(guestIds: readonly string[]): Promise<void>
}

/** Limits of engine processes, one group per VM. On a host without a controller its limit is not applied. */
export interface CgroupStore {
  /** Directories that the engine's process joins. */
  create(id: string, limits: { readonly memoryMib: number; readonly vcpus: number }): Promise<readonly string[]>
  /** Kills what is left inside; idempotent. */
  remove(id: string): Promise<void>
}

/** The directory whose files clone in constant time, which holds all disks and memory. */
export interface FilePool {
  readonly path: string
  /** `btrfs`, `xfs`, … */
  readonly filesystem: string
  /** `to` must not exist, and is gone again when this fails. */
  clone(
    from: string,
    to: string,
    owner: { readonly uid: number; readonly gid: number; readonly mode: number },
  ): Promise<void>
  usage(): Promise<{ readonly totalBytes: number; readonly freeBytes: number }>
  /** @throws AppError `disk_full` when `bytes` more would eat into the reserve */
  ensureSpace(bytes: number): Promise<void>
  /** Writes a file's dirty pages to the disk; it may be in use. */
  sync(path: string): Promise<void>
  /** Where these files lie on the device, and how many of their bytes nothing else shares. */
  extents(paths: readonly string[]): Promise<Extents & { readonly exclusiveBytes: number }>
}

/** How far a state's memory is: `plain` where nothing loads it, `broken` where what did has ended before it was whole. */
export type LoadStatus = 'plain' | 'loading' | 'whole' | 'broken'

/** Memories that still come from an object store while guests run on them. Directories are absolute. */
export interface MemoryLoads {
  status(dir: string): Promise<LoadStatus>
  /** Why one is broken, a sentence. */
  failure(dir: string): Promise<string>
  /** The file that can be cloned, once the memory is whole and flushed. */
  source(dir: string): Promise<string>
  /** Waits until all of it is here. @throws AppError `snapshot_damaged` when it breaks; the signal's reason */
  whole(dir: string, signal: AbortSignal): Promise<void>
  /** Makes a plain file of a memory that no guest runs on. @throws as `whole` */
  finish(dir: string, signal: AbortSignal): Promise<void>
  /** Ends all below a directory that is about to go. */
  drop(path: string): Promise<void>
}

/** A template's base image with all that boots it; `digest` changes whenever any part does. */
export interface TemplateImage {
  readonly name: string
  readonly aliases: readonly string[]
  readonly digest: string
  readonly basePath: string
  readonly agentPath: string
  readonly kernel: GuestKernel
  readonly kernelVersion: string
  /** Digests of all its files. */
  readonly layers: readonly string[]
  readonly sizeBytes: number
  readonly createdAtMs: number
  /** A shell line that succeeds in the guest when what the image runs at its boot is ready to be saved. */
  readonly ready?: string | undefined
  /** Of a registry: few capsules are made of it, so that no guests wait for them. */
  readonly isFetched?: boolean
}

/** A template by its names, made on first use when it is not there yet. */
export interface OfferedTemplate extends Pick<TemplateImage, 'name' | 'aliases' | 'sizeBytes' | 'createdAtMs'> {
  readonly defaultVcpus: number
  readonly defaultMemoryMib: number
}

/** An image of a registry that somebody wants as a template. */
export interface ImageWish {
  readonly reference: string
  readonly login?: { readonly username: string; readonly password: string } | undefined
  readonly signal: AbortSignal
  /** A sentence for people. */
  readonly onProgress: (sentence: string) => void
}

/** An image that somebody has as a file, wanted as a template. */
export interface ImageFileWish {
  /** As errors call the file. */
  readonly called: string
  /** Of its bytes, hexadecimal. */
  readonly sha256: string
  readonly sizeBytes: number
  /** By what the image is called in it. @default it has one alone */
  readonly image: string | undefined
  /** Its bytes; not asked for where the image is here. */
  readonly bytes: () => AsyncIterable<Uint8Array>
  readonly signal: AbortSignal
  /** A sentence for people. */
  readonly onProgress: (sentence: string) => void
}

/** A template that an image of a registry, or of a file, has become, and how the image says that it is run. */
export interface FetchedTemplate {
  readonly template: string
  /** Of the image's manifest, `sha256:…`. */
  readonly digest: string
  readonly sizeBytes: number
  readonly env: readonly string[]
  readonly user: string
  readonly workingDir: string
  readonly entrypoint: readonly string[]
  readonly command: readonly string[]
  readonly ports: readonly number[]
  /** Of an archive of a template. */
  readonly archived?: ArchivedTemplate
}

/** How commands run in a template's capsules, and what runs in it from the start on; empty: nothing. */
export interface TemplateSetup {
  readonly user: string
  readonly cwd: string
  readonly envs: Readonly<Record<string, string>>
  readonly startCommand: string
  readonly readyCommand: string
}

/** A template as its archive has it. */
export interface ArchivedTemplate {
  readonly setup: TemplateSetup
  readonly vcpus: number
  readonly memoryMib: number
  readonly diskSizeMib: number
  /** Whether its disk alone has every file. */
  readonly synced: boolean
}

/** A template that is to be packed; its files must not change meanwhile. */
export interface PackWish extends ArchivedTemplate {
  readonly name: string
  readonly basePath: string
  readonly diskPath: string
  readonly signal: AbortSignal
}

/** What guests boot from. Files that it names stay as long as a name or a record refers to them. */
export interface ImageStore {
  /** Builds the image when there is none yet, which takes minutes. @throws AppError `template_not_found`, `image_build_failed` */
  template(name: string): Promise<TemplateImage>
  /** All that `template` can give, the default one first; what is not built yet has the size 0 and the time 0. */
  offered(): Promise<readonly OfferedTemplate[]>
  /** Makes an image of a registry a template. @throws AppError as the registry's answer is */
  fetch(wish: ImageWish): Promise<FetchedTemplate>
  /** Makes an image of a file, or an archive of a template, a template. @throws AppError `image_not_usable`, … as the file is */
  import(wish: ImageFileWish): Promise<FetchedTemplate>
  /** Those that are built; a manifest alone is no template. */
  list(): Promise<readonly TemplateImage[]>
  /** An archive of a template, as `import` takes it. */
  pack(wish: PackWish): AsyncIterable<Uint8Array>
  /** A sparse disk to clone from: of a template that was imported its own, else a formatted, empty one. */
  firstDisk(template: string, sizeMib: number): Promise<string>
}

/** The machine as the domain sees it; `main.ts` wires the real one. */
export interface Machine {
  readonly engine: Engine
  readonly slots: SlotPool
  readonly cgroups: CgroupStore
  readonly pool: FilePool
  readonly memory: MemoryLoads
  readonly images: ImageStore
  /** Sockets, console logs and pid files, one directory per VM. */
  readonly runDir: string
}
