import type { CapsuleId } from '@wrenn/base'
import type { CapsuleState } from '@wrenn/protocol'
import type { VmExit, VmRecord } from '@wrenn/vmm'

/** What a capsule is made of; fixed at create. */
export interface CapsuleSpec {
  readonly template: string
  readonly vcpus: number
  readonly memoryMib: number
  readonly diskSizeMib: number
}

export interface CreateCapsuleInput extends CapsuleSpec {
  readonly capsuleId: CapsuleId
  readonly teamId: string
  readonly envs: Readonly<Record<string, string>>
  readonly egress: EgressPolicy
  readonly hostname: string
  readonly defaultUser: string
  readonly defaultCwd: string
  readonly generation: number
}

export interface EgressPolicy {
  /** Internet allowed unless denied; false: only what `allow` lists. */
  readonly internet: boolean
  readonly allow: readonly string[]
  readonly deny: readonly string[]
}

/** How a create was served: a waiting VM, a restored snapshot, or a boot that left a snapshot behind. */
export type CreatePath = 'hot' | 'restore' | 'cold'

export interface Timing {
  readonly step: string
  readonly ms: number
}

/** A guest's host resources, all named after `vmId`. */
export interface VmResources {
  /** Names files, sockets, cgroup and process. Equals the capsule id unless the VM waited in the hot pool. */
  readonly vmId: string
  readonly slotIndex: number
  readonly guestAddress: string
  readonly uid: number
  /** Absent between taking the resources and the engine's start. */
  readonly vm: VmRecord | undefined
}

/** The journal's record of one capsule: the host's truth about it. Plain JSON. */
export interface CapsuleRecord extends CapsuleSpec {
  readonly capsuleId: CapsuleId
  readonly teamId: string
  readonly state: CapsuleState
  readonly generation: number
  readonly resources: VmResources | undefined
  /** Proves the host agent to the guest agent; new for each capsule. */
  readonly secret: string
  readonly egress: EgressPolicy
  readonly engine: string
  readonly engineVersion: string
  readonly kernelVersion: string
  /** Digests of the read-only files the guest runs from: they stay while this record does. */
  readonly layers: readonly string[]
  readonly agentVersion: string
  readonly path: CreatePath
  readonly timings: readonly Timing[]
  readonly createdAtMs: number
  readonly lastActiveAtMs: number
  readonly exit: VmExit | undefined
}
