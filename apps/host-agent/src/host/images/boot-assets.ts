import { type AgentInputs, ensureAgentDrive } from './agent-drive.js'
import { ensureKernel, type KernelOptions } from './kernel.js'
import { LayerStore } from './store.js'

/**
 * Kernel arguments for `GuestKernel.args`.
 *
 * - `mitigations=off`: the host separates capsules by its own mitigations; inside one there is one tenant, and each system
 *   call would pay.
 * - `tsc=reliable`: a paused or starved guest looks like a drifting TSC to the kernel's watchdog, which would switch to the
 *   ACPI timer, where each clock reading leaves the guest. With KVM its own clock is used either way.
 * - `random.trust_cpu=on`: the random generator is ready at once; virtio-rng and the host add entropy.
 * - `lsm=landlock,yama audit=0`: no other security module has a policy here. Saves about 0.1 s of boot without KVM.
 * - `initcall_blacklist=jent_mod_init`: a self-test for FIPS that takes 0.08 s without KVM.
 */
export const kernelArgs: readonly string[] = [
  'mitigations=off',
  'tsc=reliable',
  'random.trust_cpu=on',
  'lsm=landlock,yama',
  'audit=0',
  'initcall_blacklist=jent_mod_init',
]

/** Where boot files are built and what the agent drive is made of. */
export interface BootOptions extends KernelOptions {
  readonly agent: AgentInputs
}

/** What every boot needs beside a base image and a disk. All files are read-only and shared. */
export interface BootAssets {
  readonly kernelPath: string
  readonly initrdPath: string
  readonly agentDrivePath: string
  /** `6.12.x-cloud-amd64`, as `uname -r` says it. */
  readonly kernelVersion: string
  readonly busyboxVersion: string
  /** Content digests; a snapshot that was made with others still works, but a template should be made anew. */
  readonly kernelDigest: string
  readonly initrdDigest: string
  readonly agentVersion: string
  readonly kernelArgs: readonly string[]
}

/** Gives kernel, initramfs and agent drive, building what is missing or out of date. */
export async function ensureBootAssets(options: BootOptions): Promise<BootAssets> {
  const store = new LayerStore(options.poolDir)
  const boot = await ensureKernel(store, options)
  const agent = await ensureAgentDrive(store, options, boot)
  return {
    kernelPath: store.layerPath(boot.kernelDigest),
    initrdPath: store.layerPath(boot.initrdDigest),
    agentDrivePath: agent.path,
    kernelVersion: boot.kernelVersion,
    busyboxVersion: boot.busyboxVersion,
    kernelDigest: boot.kernelDigest,
    initrdDigest: boot.initrdDigest,
    agentVersion: agent.digest,
    kernelArgs,
  }
}
