import * as wire from '@wrenn/protocol'

export type {
  AwakeReason,
  CapsuleState,
  EgressPolicy,
  EgressRule,
  PauseReason,
  PortAccess,
  SignalName,
} from '@wrenn/protocol'

/** A step of an operation and how long it took. */
export interface Timing {
  /** A stable name for machines, such as `restore` or `save`. */
  readonly step: string
  /** Milliseconds, with fractions. */
  readonly ms: number
}

/** A capsule as the platform last knew it. */
export interface CapsuleInfo {
  readonly id: string
  /** For people; need not be unique. */
  readonly name: string | undefined
  /** One of a small closed set; `state` is exact. */
  readonly status: wire.WireStatus
  readonly state: wire.CapsuleState
  /** As it was asked for: perhaps an alias. */
  readonly template: string
  readonly vcpus: number
  readonly memoryMib: number
  /** Writable space as it was asked for; how much of the pool it takes says `diskBytes`. */
  readonly diskSizeMib: number
  /** Time without activity after which it is paused; 0 means never. */
  readonly timeoutMs: number
  readonly labels: Readonly<Record<string, string>>
  readonly hostId: string | undefined
  readonly createdAt: Date
  /** When it came to run last: by its create or a resume. */
  readonly startedAt: Date | undefined
  /** When it was used last; up to some seconds late. */
  readonly lastActiveAt: Date | undefined
  /** firecracker, qemu-kvm or qemu-tcg. */
  readonly engine: string | undefined
  /** How it was created: hot, restore or cold. */
  readonly path: string | undefined
  /** Steps of the create; only in its own answer. */
  readonly timings: readonly Timing[] | undefined
  /** Why it ended, when it ended by itself. */
  readonly exit: CapsuleExitInfo | undefined
  /** Versions of engine, kernel and agent, as far as known. */
  readonly metadata: Readonly<Record<string, string>>
  /** Whether it wakes by itself when it is used while paused. */
  readonly autoResume: boolean
  /** Who may reach its ports by their URLs: whoever knows its id, or whoever has its token. */
  readonly portAccess: wire.PortAccess
  /** When it will be paused if nothing happens; absent without an idle timeout. */
  readonly pausesAt: Date | undefined
  /** When its life is over, however it is used; absent where it has no end. */
  readonly endsAt: Date | undefined
  /** What becomes of it then. */
  readonly onEnd: 'kill' | 'pause' | undefined
  /** What has kept it from being paused although its idle timeout is over. */
  readonly awakeBecause: readonly wire.AwakeReason[] | undefined
  /** Why it was paused last. */
  readonly pauseReason: wire.PauseReason | undefined
  readonly pausedAt: Date | undefined
  /** Whether the saved state of a paused capsule would survive a power loss of its host. */
  readonly durable: boolean | undefined
  /** Since when it is. */
  readonly durableAt: Date | undefined
  /** What its owner should know, such as that an older state had to be resumed. */
  readonly notice: string | undefined
  /** The capsule it was forked from. */
  readonly parentId: string | undefined
  /** The snapshot it was started from. */
  readonly snapshotId: string | undefined
  /** The checkpoint it stands on: made or rolled back to last. */
  readonly checkpointId: string | undefined
  /** Bytes of the pool that it and its checkpoints hold together, beyond its template; `undefined` until measured. */
  readonly diskBytes: number | undefined
  /** Steps of the pause, resume or rollback that this answers. */
  readonly lifecycleTimings: readonly Timing[] | undefined
}

/** Why a capsule is in `error`, or was when it ended. */
export interface CapsuleExitInfo {
  /**
   * guest_shutdown, guest_panic, guest_reset, oom_killed, killed, engine_failure, create_failed or unknown; others may come.
   */
  readonly cause: string
  /** A sentence for people. */
  readonly message: string
  /** What the guest's console said last, where that was kept. */
  readonly consoleTail: string | undefined
}

/** What capsules start from, with the size they get unless the create says otherwise. */
export interface TemplateInfo {
  /** What a create takes. */
  readonly name: string
  readonly type: 'base' | 'snapshot'
  /** Built in, the same for every team; cannot be deleted. */
  readonly platform: boolean
  /** Only of snapshots. */
  readonly snapshotId: string | undefined
  /** Whether it would survive a power loss of its host. */
  readonly durable: boolean | undefined
  /** Other names that a create takes for it. */
  readonly aliases: readonly string[]
  readonly description: string | undefined
  readonly vcpus: number
  readonly memoryMib: number
  /** Only of snapshots; a base template has the platform's default. */
  readonly diskSizeMib: number | undefined
  /** Of a base template: its image. Of a snapshot: bytes of the pool that only it holds, 0 until measured. */
  readonly sizeBytes: number | undefined
  readonly createdAt: Date
}

/** A process that was started through the API; what those start themselves is not listed. */
export interface ProcessInfo {
  /** Inside the capsule. Its number may come to mean another process; a `tag` does not. */
  readonly pid: number
  /** The name to attach by; `undefined` for what others than this API started without one. */
  readonly tag: string | undefined
  /** The program, as it was started: `/bin/sh` for a command given as a line. */
  readonly command: string
  readonly args: readonly string[]
  readonly cwd: string | undefined
  /** Whether it is a terminal: attach with `attachPty`. */
  readonly pty: boolean
  /** False only with `includeEnded`. */
  readonly running: boolean
  /** All it wrote so far, both streams together; more than what is still kept. */
  readonly outputBytes: number
  readonly startedAt: Date | undefined
}

/** What is at a path. Of a symbolic link size, mode and owner are its target's, while the target is there. */
export interface FileInfo {
  readonly name: string
  /** Absolute, inside the capsule. */
  readonly path: string
  /** `unknown`: a device, FIFO or socket. */
  readonly type: 'file' | 'directory' | 'symlink' | 'unknown'
  readonly sizeBytes: number
  /** Permission bits. */
  readonly mode: number
  /** As `ls -l` shows them, such as `-rw-r--r--`. */
  readonly permissions: string
  /** Name in the guest, or the number when it has none. */
  readonly owner: string
  readonly group: string
  /** To the second. */
  readonly modifiedAt: Date
  /** The resolved path; what the link says, when that leads nowhere. `undefined` for what is no link. */
  readonly symlinkTarget: string | undefined
  /** What a symlink leads to. */
  readonly targetType: FileInfo['type'] | undefined
}

/** What a running capsule uses now. */
export interface CapsuleMetrics {
  /** By the guest's clock. */
  readonly timestamp: Date
  /** Percent of all vCPUs. */
  readonly cpuPct: number
  readonly cpuCount: number
  /** Inside the guest, its page cache left out. */
  readonly memoryUsedBytes: number
  readonly memoryTotalBytes: number
  /** Of the capsule's writable space. */
  readonly diskUsedBytes: number
  readonly diskTotalBytes: number
  /** What the capsule costs its host: resident memory of the process that runs it. */
  readonly hostRssBytes: number
}

/** How far back a history of metrics may be asked for. */
export type MetricsRange = wire.MetricsRange

/** What a capsule used in a step of time. */
export interface MetricsPoint {
  /** When the step ended, or began where steps are longer than 5 s. */
  readonly timestamp: Date
  /** Percent of all vCPUs, on average. */
  readonly cpuPct: number
  /** The highest in steps of 5 s; the same as `cpuPct` where that is the step. */
  readonly cpuMaxPct: number
  /** Resident memory of the process that runs the guest. */
  readonly memoryBytes: number
  /** What its disk takes of the host's pool. */
  readonly diskBytes: number
  /** Received and sent in the step; absent where nobody counted. */
  readonly netRxBytes?: number
  readonly netTxBytes?: number
}

/** What a capsule has used, measured outside its guest. */
export interface MetricsHistory {
  readonly range: MetricsRange
  /** Between points: 5 s up to ten minutes, 30 s up to two hours, five minutes up to a day. */
  readonly stepMs: number
  /** Oldest first; none of times when the capsule did not run. */
  readonly points: readonly MetricsPoint[]
}

/** What a command did. A command that fails, is killed or runs out of time is a result too; look at `exitCode`. */
export interface ExecResult {
  /** Text of the output, with U+FFFD for what is not UTF-8; the exact bytes are in `stdoutBytes`. */
  readonly stdout: string
  readonly stderr: string
  /** As they were written, cut where `truncated` says so. */
  readonly stdoutBytes: Uint8Array
  readonly stderrBytes: Uint8Array
  /** 128 + n when signal n ended the process, 124 after `timeoutMs`, 127 for an unknown command. */
  readonly exitCode: number
  /** Number of the signal that ended it, such as 9; `undefined` when it exited. */
  readonly signal: number | undefined
  /** Killed after `timeoutMs`; the output is what it wrote until then. */
  readonly timedOut: boolean
  /** There was more output than an answer holds; `stream` gives all of it. */
  readonly truncated: boolean
  /** The guest's kernel ended it for want of memory. */
  readonly oomKilled: boolean
  /** From when the platform asked the guest for it until its exit was known; time asleep counts. */
  readonly durationMs: number
  /** Only with `atomic`: whether the capsule was put back to where it was before the command. */
  readonly rolledBack: boolean | undefined
}

/** A point in time to which its capsule can go back. */
export interface CheckpointInfo {
  readonly id: string
  readonly capsuleId: string
  /** Unique in its capsule. */
  readonly name: string
  /** The checkpoint that the capsule stood on when this one was made. */
  readonly parentId: string | undefined
  /** Whether the capsule stands on it: made or rolled back to last. */
  readonly current: boolean
  readonly createdAt: Date
  /** Bytes of the pool that only it holds; `undefined` until measured. */
  readonly sizeBytes: number | undefined
  /** Whether it would survive a power loss of its host. */
  readonly durable: boolean
  /** Since when it is. */
  readonly durableAt: Date | undefined
  /** How long the capsule stood still; only in the answer to its making. */
  readonly pauseWindowMs: number | undefined
}

/** One file that differs between two points in time. */
export interface FileChange {
  readonly change: 'added' | 'changed' | 'removed'
  /** As every call on files takes it: a byte that is not UTF-8 is U+FFFD and its two hexadecimal digits. */
  readonly path: string
  /** The name itself, when it is not UTF-8. */
  readonly pathBytes: Uint8Array | undefined
  readonly type: 'file' | 'directory' | 'symlink' | 'other'
  /** Of a file's content or a link's target, on the newer side unless it was removed; 0 for all else. */
  readonly sizeBytes: number
  /** For `changed`: content, mode, owner, type, target, xattr. */
  readonly what: readonly string[]
}

/** What is used of a limit; `undefined` is no limit. */
export interface QuotaUse {
  readonly used: number
  /** `undefined`: no limit. */
  readonly limit: number | undefined
}

/** What the team uses and may use. */
export interface Quota {
  /** Those that are about to run count too. */
  readonly runningCapsules: QuotaUse
  /** Of running capsules. */
  readonly vcpus: QuotaUse
  /** Of running capsules. */
  readonly memoryMib: QuotaUse
  /** Files of capsules, checkpoints and snapshots. */
  readonly poolBytes: QuotaUse
  /** All that are not ended, paused ones too. */
  readonly capsules: QuotaUse
  /** Those that are being created now. */
  readonly creatingCapsules: QuotaUse
  /** Calls since the minute of the clock began. */
  readonly apiCallsPerMin: QuotaUse
  /** Where limits come from that are not the own ones of the team; `undefined` for none. */
  readonly plan: string | undefined
}

/** What a key is made for: see; also make, move and use capsules; also make and delete snapshots; manage keys. */
export type ApiKeyScope = wire.Scope
/** All scopes that this client knows. */
export const apiKeyScopes: readonly ApiKeyScope[] = wire.scopes

/** A key as it is known after it was made: what it is good for, not itself. */
export interface ApiKeyInfo {
  readonly id: string
  readonly name: string
  /** Its first characters. */
  readonly prefix: string
  /** A newer server may have scopes that this client does not know. */
  readonly scopes: readonly string[]
  /** Id of the key that made it. */
  readonly createdBy: string | undefined
  readonly createdAt: Date
  /** `undefined`: never. */
  readonly expiresAt: Date | undefined
  /** Some seconds late. */
  readonly lastUsedAt: Date | undefined
}

/** An account of a person, as admins of the platform see it. */
export interface UserInfo {
  readonly id: string
  readonly email: string
  readonly name: string
  /** `pending` until it is activated, `active`, `disabled`, or `deleted` by its owner. Others may come. */
  readonly status: string
  /** Of the platform. */
  readonly isAdmin: boolean
  readonly createdAt: Date
  /** Of a deleted one: until then it can be restored. */
  readonly eraseAt: Date | undefined
}

/** What begins, goes on with or moves a session. */
export interface SignedIn {
  readonly sessionId: string
  readonly userId: string
  /** The team that the session works in. */
  readonly teamId: string
  readonly email: string
  readonly name: string
  /** Of the token, not of the session. */
  readonly expiresAt: Date
  /** For `apiKey` of a client; `undefined` where cookies carry it. */
  readonly token: string | undefined
  /** Good once, for `account.refresh`; `undefined` where cookies carry it, and when a session moves to another team. */
  readonly refreshToken: string | undefined
}

/** One's own account, as it is in the team that the session works in. */
export interface MeInfo {
  readonly id: string
  readonly email: string
  readonly name: string
  readonly hasPassword: boolean
  /** Ids of those that the account is connected with. */
  readonly providers: readonly string[]
  /** Of the platform. */
  readonly isAdmin: boolean
  readonly teamId: string
  /** In that team: `owner`, `admin`, `member` or `viewer`. Others may come. */
  readonly role: string
  /** What the session may do now, such as `capsules.write`: what is not in it would be refused. Of an older server: empty. */
  readonly permissions: readonly string[]
  /** What the platform can do that not every one can: `hibernation`. Others may come. Of an older server: empty. */
  readonly features: readonly string[]
}

/** One login of a person. */
export interface SessionInfo {
  readonly id: string
  readonly teamId: string
  /** The one that asks. */
  readonly isCurrent: boolean
  /** Of its last login or refresh. */
  readonly ip: string
  readonly userAgent: string
  readonly createdAt: Date
  readonly lastUsedAt: Date
  /** Unless it is refreshed before. */
  readonly expiresAt: Date
}

/** One thing that happened in a team. */
export interface AuditEntry {
  readonly id: string
  readonly createdAt: Date
  /** `key`, `user`: a person, or `system`: the platform itself. Others may come. */
  readonly actorType: string
  readonly actorId: string | undefined
  /** Of a key as it was then; of a person their address as it is now, `undefined` once the account is deleted. */
  readonly actorName: string | undefined
  /** Such as `capsule.create`. */
  readonly action: string
  readonly resourceType: string
  readonly resourceId: string
  /** Address, as it is now, of the account that this is about. */
  readonly resourceEmail: string | undefined
  /** `team`: capsules and templates. `admin`: the team itself and its keys. */
  readonly scope: string
  /** `accepted`: begun; its end is an entry with the same `details.operation_id`. */
  readonly outcome: string
  readonly requestId: string | undefined
  readonly ip: string | undefined
  readonly details: Readonly<Record<string, string>>
  /** Place in the chain of the team; `undefined` for a moment. */
  readonly seq: number | undefined
  /** SHA-256 of all the rest and the hash before it. */
  readonly hash: string | undefined
}
