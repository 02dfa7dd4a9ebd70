import { type AgentInputs, ensureAgentDrive } from './agent-drive.js'
import { ensureKernel } from './kernel.js'
import type { ImageStoreOptions } from './progress.js'
import { LayerStore } from './store.js'

/**
 * Kernel arguments for `GuestKernel.args`.
 *
 * - `mitigations=off`: the host separates capsules by its own mitigations; inside one there is one tenant, and each
 *   system call would pay. Emulated CPUs gain the most.
 * - `random.trust_cpu=on`: the random generator is ready at once instead of waiting for events; the host adds entropy.
 * - `nokaslr`: saves the relocation of the kernel at boot; template restores share one layout anyway.
 */
export const kernelArgs: readonly string[] = ['mitigations=off', 'random.trust_cpu=on', 'nokaslr']

export interface BootOptions extends ImageStoreOptions {
  readonly agent: AgentInputs
  /** Download kernel and busybox again. @default false */
  readonly rebuild?: boolean
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
  const agent = await ensureAgentDrive(store, options, boot.busyboxDigest)
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
