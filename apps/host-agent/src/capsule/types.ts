import type { CapsuleId } from '@wrenn/base'
import type { Credentials } from '@wrenn/certificates'
import type { CapsuleState, PauseReason } from '@wrenn/protocol'
import type { VmExit, VmRecord } from '@wrenn/vmm'
import type { EdgeRule } from '../host/network/index.js'
import type { StoredImage } from './state-files.js'

/** What a capsule is made of; fixed at create. */
export interface CapsuleSpec {
  readonly template: string
  readonly vcpus: number
  readonly memoryMib: number
  readonly diskSizeMib: number
}

/** What a create asks of this host, checked and complete: defaults and limits are the control plane's. */
export interface CreateCapsuleInput extends CapsuleSpec {
  readonly capsuleId: CapsuleId
  readonly teamId: string
  readonly envs: Readonly<Record<string, string>>
  readonly egress: EgressPolicy
  /** The control plane's counter for the policy; the newest holds. */
  readonly egressRevision: number
  readonly hostname: string
  /** Of commands; empty means root. */
  readonly defaultUser: string
  /** Of commands; empty means the user's home. */
  readonly defaultCwd: string
  /** The control plane's counter for its record, which orders what it hears of it. */
  readonly generation: number
  /** Start from this snapshot instead of the template's. */
  readonly snapshotId?: string
  /** Only if that snapshot's files are, byte by byte, what was saved. @default false */
  readonly isVerified?: boolean
}

/** What a capsule's memory knew and its disk does not: whoever starts it from its disk alone gives it again. */
export type FromDisk = Pick<CreateCapsuleInput, 'envs' | 'defaultUser' | 'defaultCwd'>

/** What a capsule may reach, as its record keeps it; `host/network/policy.ts` says what it comes to. */
export interface EgressPolicy {
  /** Internet allowed unless denied; false: only what `allow` lists. */
  readonly internet: boolean
  /** IPv4 addresses, networks and domains. */
  readonly allow: readonly string[]
  readonly deny: readonly string[]
  /** Whether what it lets through is noted, place by place. */
  readonly learn?: boolean | undefined
  /** Whether there are `rules`, also where this process does not know them. */
  readonly intercept?: boolean | undefined
  /** Headers for hosts, which may be secret: in memory alone, never in the journal. */
  readonly rules?: readonly EdgeRule[] | undefined
  /** Speaks for the hosts of rules toward the guest. The capsule keeps it, as the guest keeps its trust. */
  readonly authority?: Credentials | undefined
}

/** Attempts of a capsule at one target that its policy refused by name; `host/names` says for what reasons. */
export interface Refusal {
  readonly name?: string | undefined
  readonly address?: string | undefined
  readonly port: number
  readonly reason: string
  /** The entry of the policy that refused. */
  readonly rule?: string | undefined
  readonly count: number
  readonly lastAtMs: number
}

/** How a create was served: a waiting VM, a restored snapshot, or a boot that left a snapshot behind. */
export type CreatePath = 'hot' | 'restore' | 'cold'

/** One step of an operation, in the order of their ends; together they are about its whole time. */
export interface Timing {
  readonly step: string
  readonly ms: number
}

/** A guest's host resources, all named after `vmId`. */
export interface VmResources {
  /** Names sockets, cgroup and process: the capsule id, with a suffix while a capsule has two guests; `hot-…` in the pool. */
  readonly vmId: string
  /** Directory of the guest's disk and memory, below the pool. */
  readonly dir: string
  readonly slotIndex: number
  readonly guestAddress: string
  readonly uid: number
  /** Absent between taking the resources and the engine's start. */
  readonly vm: VmRecord | undefined
}

/** What a rollback changes of a capsule that had, or has, a guest. */
export type RollbackUndo = Pick<
  CapsuleRecord,
  'state' | 'files' | 'fallback' | 'checkpointId' | 'reviving' | 'exit' | 'notice'
>

/** As what the state of these files that was saved then is in the object store; of any other state it says nothing. */
export interface StoredMark {
  readonly stateId: string
  readonly files: number
  readonly savedAtMs: number
  readonly bytes: number
  /** To fetch it from there; 0: it was stored from here. */
  readonly attempt: number
}

/** The journal's record of one capsule: the host's truth about it. Plain JSON; what is `undefined` is not in the file. */
export interface CapsuleRecord extends CapsuleSpec {
  readonly capsuleId: CapsuleId
  readonly teamId: string
  readonly state: CapsuleState
  readonly generation: number
  readonly resources: VmResources | undefined
  /** A second guest of the same capsule: the next one while a rollback prepares it, the last one while it is given back. */
  readonly other?: VmResources | undefined
  /** While a rollback's last guest is `other`: what the capsule was with it. Holds when the directory of `files` is gone. */
  readonly undo?: RollbackUndo | undefined
  /** Number of the directory that the guest runs on, or that a paused capsule resumes from. */
  readonly files: number
  /** Number of an older saved state that is durable and kept until a newer one is. */
  readonly fallback?: number | undefined
  /** The guest was let run and does not know yet that time has passed. */
  readonly reviving?: boolean | undefined
  /** Proves the host agent to the guest agent; new for each capsule. */
  readonly secret: string
  readonly hostname: string
  readonly egress: EgressPolicy
  /** Of a record from before policies could change: none, which is 0. */
  readonly egressRevision?: number | undefined
  readonly engine: string
  /** What runs its guest, or ran it last. */
  readonly engineVersion: string
  readonly kernelVersion: string
  /** The read-only files the guest runs from: they stay while this record does. */
  readonly image: StoredImage
  readonly agentVersion: string
  readonly path: CreatePath
  readonly timings: readonly Timing[]
  readonly lifecycleTimings?: readonly Timing[] | undefined
  readonly createdAtMs: number
  readonly lastActiveAtMs: number
  readonly exit: VmExit | undefined
  readonly pauseReason?: PauseReason | undefined
  readonly pausedAtMs?: number | undefined
  readonly durableAtMs?: number | undefined
  readonly notice?: string | undefined
  readonly stored?: StoredMark | undefined
  /** Of the fetch that brought it here; whatever is stored of it later. */
  readonly wakeAttempt?: number | undefined
  /** The state in the object store that its memory comes, or came, from while it runs: it goes back to that as long as it has no durable one here. */
  readonly loadedFrom?: string | undefined
  readonly parentId?: string | undefined
  /** Of a copy that starts: the copy that, once it runs, decides that the whole fork has happened. */
  readonly leader?: CapsuleId | undefined
  readonly snapshotId?: string | undefined
  /** The checkpoint it stands on: made or rolled back to last. */
  readonly checkpointId?: string | undefined
  readonly diskBytes?: number | undefined
  /** Boot of the host under which this was written; another one means that every guest is gone. */
  readonly bootId: string
}
