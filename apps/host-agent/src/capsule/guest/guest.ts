import { chmod, chown, mkdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import {
  AppError,
  inSpan,
  type Logger,
  noSteps,
  noTracer,
  type ReachStep,
  settleAll,
  type Tracer,
  UndoStack,
} from '@wrenn/base'
import { type Hardware, killRecordedVm, type Vm, type VmRecord, type VmSpec } from '@wrenn/vmm'
import { removeTree } from '../../host/remove-tree.js'
import type { Machine, Slot, TemplateImage } from '../machine.js'
import { type GuestFiles, STATE_FILES, type StoredImage } from '../state-files.js'
import type { CapsuleSpec, EgressPolicy, VmResources } from '../types.js'
import { GuestClient } from './client.js'
import { type Patience, patienceOf } from './pulse.js'

/** A guest that runs (or waits, vCPUs stopped), with everything on the host that belongs to it. */
export interface Guest {
  readonly resources: VmResources
  readonly vm: Vm
  readonly client: GuestClient
}

/** What a guest runs from, with absolute paths. */
export type GuestImage = Pick<TemplateImage, 'basePath' | 'agentPath' | 'kernel'>

/** What is needed to make one guest, whichever way: by boot, from clones of a saved state, or in place. */
export interface GuestPlan {
  /** Names process, cgroup and run directory. */
  readonly vmId: string
  /** Directory for disk and memory, below the pool. */
  readonly dir: string
  readonly spec: CapsuleSpec
  /** Of a boot the engine's newest, of a restore what the state was saved on. */
  readonly hardware: Hardware
  readonly image: GuestImage
  /** What the guest agent knows its host by. */
  readonly secret: string
  /** Called with the resources as soon as they exist, before anything runs, so that a crash leaves a record of them. */
  readonly onResources: (resources: VmResources) => Promise<void>
  /** In force before its vCPUs run. @default the caller applies one */
  readonly egress?: EgressPolicy
}

/** What differs between the ways to make a guest. */
interface Making {
  /** Puts the guest's files in place, while the rest is prepared. */
  readonly files: (files: Omit<GuestFiles, 'statePath'>, slot: Slot, undo: UndoStack) => Promise<void>
  readonly start: (vmSpec: VmSpec) => Promise<Vm>
}

/** A cold boot on a busy machine without hardware virtualization. */
export const BOOT_TIMEOUT_MS = 120_000

const noRecord = async (): Promise<void> => {}
const DIRECTORY_MODE = 0o711

/** A guest outside any capsule: it warms a shape or waits in the hot pool, and the sweep finds it by its name. */
export function unrecordedPlan(
  vmId: string,
  guest: Pick<GuestPlan, 'spec' | 'hardware' | 'image' | 'secret'>,
): GuestPlan {
  return { vmId, dir: firstDir(vmId), ...guest, onResources: noRecord }
}

/** Where a guest's files are before its first save. */
export function firstDir(owner: string): string {
  return join('capsules', owner, '0')
}

interface FactoryOptions {
  readonly logger: Logger
  readonly reach?: ReachStep
  /** How long calls to its guests wait for a sign of them. */
  readonly patience?: Patience
  /** @default makes no spans */
  readonly tracer?: Tracer
}

/** Makes and removes guests with all their host resources. Each resource carries the VM's id. */
export class GuestFactory {
  readonly #machine: Machine
  readonly #logger: Logger
  readonly #reach: ReachStep
  readonly #patience: Patience
  readonly #tracer: Tracer

  constructor(
    machine: Machine,
    { logger, reach = noSteps, patience = patienceOf(), tracer = noTracer }: FactoryOptions,
  ) {
    this.#machine = machine
    this.#logger = logger
    this.#reach = reach
    this.#patience = patience
    this.#tracer = tracer
  }

  /** Boots a fresh guest on a clone of `disk`, by default of its template's first one; returns while it is still coming up. */
  async boot(plan: GuestPlan, disk?: string): Promise<Guest> {
    return await this.#make(plan, {
      files: async ({ diskPath }, slot, undo) => {
        await this.#makeDirectory(plan.dir, undo)
        const source = disk ?? (await this.#machine.images.firstDisk(plan.spec.template, plan.spec.diskSizeMib))
        await this.#machine.pool.clone(source, diskPath, ownerOf(slot))
      },
      start: (vmSpec) => this.#machine.engine.boot(vmSpec),
    })
  }

  /** Starts a guest from clones of `files`, vCPUs running unless `paused`. */
  async restore(plan: GuestPlan, files: GuestFiles, options: { readonly paused?: boolean } = {}): Promise<Guest> {
    return await this.#make(plan, {
      files: async ({ diskPath, memoryPath }, slot, undo) => {
        await this.#makeDirectory(plan.dir, undo)
        await settleAll([
          this.#machine.pool.clone(files.diskPath, diskPath, ownerOf(slot)),
          this.#machine.pool.clone(files.memoryPath, memoryPath, ownerOf(slot)),
        ])
      },
      start: (vmSpec) => this.#machine.engine.restore(vmSpec, { ...options, statePath: files.statePath }),
    })
  }

  /** Starts a guest, vCPUs stopped, on the saved files of `plan.dir` themselves; they stay when it fails. */
  async restoreInPlace(plan: GuestPlan): Promise<Guest> {
    const statePath = join(this.#machine.pool.path, plan.dir, STATE_FILES.state)
    return await this.#make(plan, {
      files: async ({ diskPath, memoryPath }, { uid, gid }) => {
        await settleAll([chown(diskPath, uid, gid), chown(memoryPath, uid, gid)])
      },
      start: (vmSpec) => this.#machine.engine.restore(vmSpec, { paused: true, statePath }),
    })
  }

  /** Gives a waiting guest's files to a capsule. The guest goes on: it has them open. */
  async claimFiles(guest: Guest, owner: string): Promise<Guest> {
    const dir = firstDir(owner)
    const root = this.#machine.pool.path
    await mkdir(dirname(join(root, dir)), { recursive: true, mode: DIRECTORY_MODE })
    await rename(join(root, guest.resources.dir), join(root, dir))
    await rm(dirname(join(root, guest.resources.dir)), { recursive: true, force: true })
    return { ...guest, resources: { ...guest.resources, dir } }
  }

  imageOf(stored: StoredImage): GuestImage {
    const at = (path: string) => join(this.#machine.pool.path, path)
    return {
      basePath: at(stored.basePath),
      agentPath: at(stored.agentPath),
      kernel: { kernelPath: at(stored.kernelPath), initrdPath: at(stored.initrdPath), args: stored.kernelArgs },
    }
  }

  /** Takes up a guest that an earlier run of this process started; `undefined` when it is gone. */
  async adopt(resources: VmResources, secret: string): Promise<Guest | undefined> {
    if (resources.vm === undefined) return undefined
    const vm = await this.#adoptVm(resources.vm)
    if (vm === undefined) return undefined
    return { resources, vm, client: new GuestClient(resources.guestAddress, secret, this.#patience, this.#tracer) }
  }

  /** An engine process that lives but does not answer can serve nobody: it is ended. */
  async #adoptVm(record: VmRecord): Promise<Vm | undefined> {
    try {
      return await this.#machine.engine.adopt(record)
    } catch (error) {
      this.#logger.error({ err: error, vmId: record.id }, 'guest.adopt_failed')
      await killRecordedVm(record)
      return undefined
    }
  }

  /** Ends the guest's process and gives back what it held of the machine; its files stay. Idempotent. */
  async stop(resources: VmResources, vm: Vm | undefined): Promise<void> {
    if (vm !== undefined) await vm.kill()
    else if (resources.vm !== undefined) await killRecordedVm(resources.vm)
    const steps: readonly [string, () => Promise<unknown>][] = [
      ['cgroup', () => this.#machine.cgroups.remove(resources.vmId)],
      ['slot', () => this.#machine.slots.release(resources.slotIndex, resources.vmId)],
      ['run directory', () => rm(this.#runDir(resources.vmId), { recursive: true, force: true })],
    ]
    for (const [step, undo] of steps) {
      try {
        await undo()
      } catch (error) {
        // The sweep at the next start finds what stays behind; the rest must still be given back.
        this.#logger.error({ err: error, vmId: resources.vmId, step }, 'guest.cleanup_failed')
      }
    }
  }

  /** Ends what loads the memory of a capsule, and with it whatever runs on that. Idempotent. */
  async dropMemory(owner: string): Promise<void> {
    await this.#machine.memory.drop(this.#folderOf(owner))
  }

  /** Removes all files of a capsule, or of a guest outside any. Idempotent. */
  async removeFiles(owner: string): Promise<void> {
    await this.dropMemory(owner)
    await removeTree(this.#folderOf(owner))
  }

  #folderOf(owner: string): string {
    return join(this.#machine.pool.path, 'capsules', owner)
  }

  #runDir(vmId: string): string {
    return join(this.#machine.runDir, vmId)
  }

  async #make(plan: GuestPlan, { files, start }: Making): Promise<Guest> {
    const { vmId, dir, egress, onResources } = plan
    await using undo = new UndoStack()
    const slot = await this.#part('network', () => this.#machine.slots.acquire(vmId))
    await undo.defer(() => this.#machine.slots.release(slot.index, vmId))
    const waiting: VmResources = {
      vmId,
      dir,
      slotIndex: slot.index,
      guestAddress: slot.guestAddress,
      uid: slot.uid,
      vm: undefined,
    }
    await onResources(waiting)
    const [vmSpec] = await settleAll([
      this.#prepare(plan, slot, undo),
      this.#part('files', () => files(this.#filesOf(plan), slot, undo)),
    ])
    const started = this.#part('engine', () => start(vmSpec)).then(async (vm) => {
      await undo.defer(() => vm.kill())
      return vm
    })
    const guarded = egress === undefined ? Promise.resolve() : this.#machine.slots.applyPolicy(slot.index, egress)
    const [vm] = await settleAll([started, guarded])
    this.#reach('guest:launched')
    const resources = { ...waiting, vm: vm.record }
    await onResources(resources)
    const client = new GuestClient(slot.guestAddress, plan.secret, this.#patience, this.#tracer)
    undo.move()
    return { resources, vm, client }
  }

  /** Part of a step of a traced operation. */
  async #part<T>(name: string, work: () => Promise<T>): Promise<T> {
    if (!this.#tracer.isActive()) return await work()
    return await inSpan(this.#tracer, `part ${name}`, {}, work)
  }

  #filesOf({ dir }: GuestPlan): Omit<GuestFiles, 'statePath'> {
    const at = (name: string) => join(this.#machine.pool.path, dir, name)
    return { diskPath: at(STATE_FILES.disk), memoryPath: at(STATE_FILES.memory) }
  }

  async #prepare(plan: GuestPlan, slot: Slot, undo: UndoStack): Promise<VmSpec> {
    const { vmId, spec, hardware, image } = plan
    const runDir = this.#runDir(vmId)
    await undo.defer(() => this.#machine.cgroups.remove(vmId))
    await undo.defer(() => rm(runDir, { recursive: true, force: true }))
    const [cgroups] = await settleAll([this.#machine.cgroups.create(vmId, spec), makeOwn(runDir, slot)])
    const { diskPath, memoryPath } = this.#filesOf(plan)
    return {
      id: vmId,
      hardware,
      vcpus: spec.vcpus,
      memoryMib: spec.memoryMib,
      kernel: image.kernel,
      layers: [
        { role: 'base', path: image.basePath },
        { role: 'agent', path: image.agentPath },
      ],
      disk: { path: diskPath },
      memoryPath,
      network: { namespace: slot.namespace, tap: slot.tap, mac: slot.mac },
      runDir,
      confinement: { uid: slot.uid, gid: slot.gid, cgroups },
    }
  }

  /** Traversal only: the guest's uid reaches its files by full path and makes none. */
  async #makeDirectory(dir: string, undo: UndoStack): Promise<void> {
    const path = join(this.#machine.pool.path, dir)
    await undo.defer(() => rm(path, { recursive: true, force: true }))
    await mkdir(path, { recursive: true, mode: DIRECTORY_MODE })
    for (const each of [dirname(path), path]) await chmod(each, DIRECTORY_MODE)
  }
}

/** The outcome of `task`, unless the guest ends meanwhile. @throws AppError `guest_died` */
export async function unlessItDies<T>(guest: Guest, task: Promise<T>): Promise<T> {
  const died = guest.vm.exited.then((exit) => {
    throw new AppError('guest_died', exit.message)
  })
  died.catch(() => {}) // it matters only while the guest is asked
  return await Promise.race([task, died])
}

async function makeOwn(runDir: string, { uid, gid }: Slot): Promise<void> {
  await mkdir(runDir, { recursive: true, mode: 0o700 })
  await chown(runDir, uid, gid)
}

function ownerOf(slot: Slot): { readonly uid: number; readonly gid: number; readonly mode: number } {
  return { uid: slot.uid, gid: slot.gid, mode: 0o600 }
}
