import type * as wire from '@wrenn/protocol'

export type { CapsuleState, EgressPolicy, SignalName } from '@wrenn/protocol'

/** A capsule as the platform last knew it. */
export interface CapsuleInfo {
  readonly id: string
  readonly name: string | undefined
  /** One of a small closed set; `state` is exact. */
  readonly status: wire.WireStatus
  readonly state: wire.CapsuleState
  readonly template: string
  readonly vcpus: number
  readonly memoryMib: number
  readonly diskSizeMib: number
  /** Time without activity after which it is paused; 0 means never. */
  readonly timeoutMs: number
  readonly labels: Readonly<Record<string, string>>
  readonly hostId: string | undefined
  readonly createdAt: Date
  readonly startedAt: Date | undefined
  readonly lastActiveAt: Date | undefined
  /** firecracker, qemu-kvm or qemu-tcg. */
  readonly engine: string | undefined
  /** How it was created: hot, restore or cold. */
  readonly path: string | undefined
  /** Steps of the create; only in its own answer. */
  readonly timings: readonly { readonly step: string; readonly ms: number }[] | undefined
  /** Why it ended, when it ended by itself. */
  readonly exit: CapsuleExitInfo | undefined
  /** Versions of engine, kernel and agent, as far as known. */
  readonly metadata: Readonly<Record<string, string>>
}

export interface CapsuleExitInfo {
  readonly cause: string
  readonly message: string
  readonly consoleTail: string | undefined
}

export interface TemplateInfo {
  readonly name: string
  readonly type: 'base' | 'snapshot'
  readonly aliases: readonly string[]
  readonly description: string | undefined
  readonly vcpus: number
  readonly memoryMib: number
  readonly sizeBytes: number
  readonly createdAt: Date
}

export interface ProcessInfo {
  readonly pid: number
  readonly tag: string | undefined
  readonly command: string
  readonly args: readonly string[]
  readonly cwd: string | undefined
  readonly pty: boolean
  readonly running: boolean
  readonly outputBytes: number
  readonly startedAt: Date | undefined
}

export interface FileInfo {
  readonly name: string
  readonly path: string
  readonly type: 'file' | 'directory' | 'symlink' | 'unknown'
  readonly sizeBytes: number
  /** Permission bits. */
  readonly mode: number
  readonly permissions: string
  readonly owner: string
  readonly group: string
  readonly modifiedAt: Date
  readonly symlinkTarget: string | undefined
}

export interface CapsuleMetrics {
  readonly timestamp: Date
  /** Percent of all vCPUs. */
  readonly cpuPct: number
  readonly cpuCount: number
  readonly memoryUsedBytes: number
  readonly memoryTotalBytes: number
  readonly diskUsedBytes: number
  readonly diskTotalBytes: number
  readonly hostRssBytes: number
}

export interface ExecResult {
  /** Text of the output, with U+FFFD for what is not UTF-8; the exact bytes are in `stdoutBytes`. */
  readonly stdout: string
  readonly stderr: string
  readonly stdoutBytes: Uint8Array
  readonly stderrBytes: Uint8Array
  /** 128 + n when signal n ended the process, 124 after `timeoutMs`, 127 for an unknown command. */
  readonly exitCode: number
  readonly signal: number | undefined
  /** Killed after `timeoutMs`; the output is what it wrote until then. */
  readonly timedOut: boolean
  /** There was more output than an answer holds; `stream` gives all of it. */
  readonly truncated: boolean
  readonly oomKilled: boolean
  readonly durationMs: number
}
