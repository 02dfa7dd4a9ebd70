import { chown, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Logger, UndoStack } from '@wrenn/base'
import { killRecordedVm, type RestoreOptions, type Vm, type VmRecord, type VmSpec } from '@wrenn/vmm'
import { GuestClient } from './guest-client.js'
import type { Machine, Slot, TemplateImage } from './machine.js'
import type { CapsuleSpec, VmResources } from './types.js'

/** A guest that runs (or waits, vCPUs stopped), with everything on the host that belongs to it. */
export interface Guest {
  readonly resources: VmResources
  readonly vm: Vm
  readonly client: GuestClient
}

/** Files a restored guest starts from. */
export interface GuestFiles {
  readonly diskPath: string
  readonly memoryPath: string
  readonly statePath: string
}

/** Called with the resources as soon as they exist, before anything runs, so that a crash leaves a record of them. */
export type OnResources = (resources: VmResources) => Promise<void>

/** Makes and removes guests with all their host resources. Each resource carries the VM's id. */
export class GuestFactory {
  readonly #machine: Machine
  readonly #logger: Logger

  constructor(machine: Machine, logger: Logger) {
    this.#machine = machine
    this.#logger = logger
  }

  /** Boots a fresh guest on an empty disk; returns while it is still coming up. */
  async boot(
    vmId: string,
    spec: CapsuleSpec,
    image: TemplateImage,
    secret: string,
    onResources: OnResources,
  ): Promise<Guest> {
    return await this.#make(vmId, spec, image, secret, onResources, async (vmSpec, slot) => {
      const owner = { uid: slot.uid, gid: slot.gid, mode: 0o600 }
      await this.#machine.pool.clone(await this.#machine.images.blankDisk(spec.diskSizeMib), vmSpec.disk.path, owner)
      return await this.#machine.engine.boot(vmSpec)
    })
  }

  /** Starts a guest from clones of `files`. */
  async restore(
    vmId: string,
    spec: CapsuleSpec,
    image: TemplateImage,
    secret: string,
    files: GuestFiles,
    onResources: OnResources,
    options: Omit<RestoreOptions, 'statePath'> = {},
  ): Promise<Guest> {
    return await this.#make(vmId, spec, image, secret, onResources, async (vmSpec, slot) => {
      const owner = { uid: slot.uid, gid: slot.gid, mode: 0o600 }
      await Promise.all([
        this.#machine.pool.clone(files.diskPath, vmSpec.disk.path, owner),
        this.#machine.pool.clone(files.memoryPath, vmSpec.memoryPath, owner),
      ])
      return await this.#machine.engine.restore(vmSpec, { ...options, statePath: files.statePath })
    })
  }

  /** Takes up a guest that an earlier run of this process started; `undefined` when it is gone. */
  async adopt(resources: VmResources, secret: string): Promise<Guest | undefined> {
    if (resources.vm === undefined) return undefined
    const vm = await this.#adoptVm(resources.vm)
    if (vm === undefined) return undefined
    return { resources, vm, client: new GuestClient(resources.guestAddress, secret) }
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
      ['slot', () => this.#machine.slots.release(resources.slotIndex)],
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

  /** Removes the guest's files. Idempotent. */
  async removeFiles(vmId: string): Promise<void> {
    await rm(this.filesDir(vmId), { recursive: true, force: true })
  }

  filesDir(vmId: string): string {
    return join(this.#machine.pool.path, 'capsules', vmId)
  }

  #runDir(vmId: string): string {
    return join(this.#machine.runDir, vmId)
  }

  async #make(
    vmId: string,
    spec: CapsuleSpec,
    image: TemplateImage,
    secret: string,
    onResources: OnResources,
    start: (vmSpec: VmSpec, slot: Slot) => Promise<Vm>,
  ): Promise<Guest> {
    await using undo = new UndoStack()
    const slot = await this.#machine.slots.acquire(vmId)
    await undo.defer(() => this.#machine.slots.release(slot.index))
    const waiting: VmResources = {
      vmId,
      slotIndex: slot.index,
      guestAddress: slot.guestAddress,
      uid: slot.uid,
      vm: undefined,
    }
    await onResources(waiting)
    const vmSpec = await this.#prepare(vmId, spec, image, slot, undo)
    const vm = await start(vmSpec, slot)
    await undo.defer(() => vm.kill())
    const resources = { ...waiting, vm: vm.record }
    await onResources(resources)
    const client = new GuestClient(slot.guestAddress, secret)
    undo.move()
    return { resources, vm, client }
  }

  async #prepare(vmId: string, spec: CapsuleSpec, image: TemplateImage, slot: Slot, undo: UndoStack): Promise<VmSpec> {
    await undo.defer(() => this.#machine.cgroups.remove(vmId))
    const cgroups = await this.#machine.cgroups.create(vmId, spec)
    const runDir = this.#runDir(vmId)
    const files = join(this.filesDir(vmId), '0')
    for (const dir of [runDir, files]) {
      await undo.defer(() => rm(dir, { recursive: true, force: true }))
      await mkdir(dir, { recursive: true, mode: 0o700 })
      await chown(dir, slot.uid, slot.gid)
    }
    await undo.defer(() => this.removeFiles(vmId))
    await chown(this.filesDir(vmId), slot.uid, slot.gid)
    return {
      id: vmId,
      vcpus: spec.vcpus,
      memoryMib: spec.memoryMib,
      kernel: image.kernel,
      layers: [
        { role: 'base', path: image.basePath },
        { role: 'agent', path: image.agentPath },
      ],
      disk: { path: join(files, 'disk.raw') },
      memoryPath: join(files, 'mem'),
      network: { namespace: slot.namespace, tap: slot.tap, mac: slot.mac },
      runDir,
      confinement: { uid: slot.uid, gid: slot.gid, cgroups },
    }
  }
}
