import type * as wire from '@wrenn/protocol'
import { escapedBytes, fromBase64, toBytes, toText } from './bytes.js'
import { WrennError } from './errors.js'
import type {
  ApiKeyInfo,
  AuditEntry,
  CapsuleInfo,
  CapsuleMetrics,
  CheckpointInfo,
  ExecResult,
  FileChange,
  FileInfo,
  MeInfo,
  MetricsHistory,
  MetricsPoint,
  ProcessInfo,
  Quota,
  QuotaUse,
  SessionInfo,
  SignedIn,
  TemplateInfo,
  UserInfo,
} from './types.js'

/** A moment that may be absent. */
export function date(text: string | undefined): Date | undefined {
  return text === undefined ? undefined : new Date(text)
}

/**
 * Wire to SDK, as all functions of this file: units go into names (`memory_mb` counts MiB), seconds become milliseconds, RFC
 * 3339 texts become dates, and what is absent on the wire is there as `undefined`, so that destructuring and types agree.
 */
export function capsuleInfo(capsule: wire.Capsule): CapsuleInfo {
  return {
    id: capsule.id,
    name: capsule.name,
    status: capsule.status,
    state: capsule.state,
    template: capsule.template,
    vcpus: capsule.vcpus,
    memoryMib: capsule.memory_mb,
    diskSizeMib: capsule.disk_size_mb,
    timeoutMs: capsule.timeout_sec * 1000,
    labels: capsule.labels,
    hostId: capsule.host_id,
    createdAt: new Date(capsule.created_at),
    startedAt: date(capsule.started_at),
    lastActiveAt: date(capsule.last_active_at),
    engine: capsule.engine,
    path: capsule.path,
    timings: capsule.timings,
    exit: capsule.exit && {
      cause: capsule.exit.cause,
      message: capsule.exit.message,
      consoleTail: capsule.exit.console_tail,
    },
    metadata: capsule.metadata,
    autoResume: capsule.auto_resume,
    portAccess: capsule.port_access,
    pausesAt: date(capsule.pauses_at),
    endsAt: date(capsule.ends_at),
    onEnd: capsule.on_end,
    awakeBecause: capsule.awake_because,
    pauseReason: capsule.pause_reason,
    pausedAt: date(capsule.paused_at),
    durable: capsule.durable,
    durableAt: date(capsule.durable_at),
    notice: capsule.notice,
    parentId: capsule.parent_id,
    snapshotId: capsule.snapshot_id,
    checkpointId: capsule.checkpoint_id,
    diskBytes: capsule.disk_bytes,
    lifecycleTimings: capsule.lifecycle_timings,
  }
}

/** A template; one that is built in has a size on the wire too, of its image. */
export function templateInfo(template: wire.Template): TemplateInfo {
  return {
    name: template.name,
    type: template.type,
    platform: template.platform,
    snapshotId: template.snapshot_id,
    durable: template.durable,
    aliases: template.aliases,
    description: template.description,
    vcpus: template.vcpus,
    memoryMib: template.memory_mb,
    diskSizeMib: template.disk_size_mb,
    sizeBytes: template.size_bytes,
    createdAt: new Date(template.created_at),
  }
}

/** `output_offset`, where the next byte of output will be, is to people the number of bytes so far. */
export function processInfo(process: wire.ProcessInfo): ProcessInfo {
  return {
    pid: process.pid,
    tag: process.tag,
    command: process.cmd,
    args: process.args,
    cwd: process.cwd,
    pty: process.pty,
    running: process.running,
    outputBytes: process.output_offset,
    startedAt: date(process.started_at),
  }
}

/** The wire has Unix seconds; `Date` counts milliseconds. */
export function fileInfo(entry: wire.FileEntry): FileInfo {
  return {
    name: entry.name,
    path: entry.path,
    type: entry.type,
    sizeBytes: entry.size,
    mode: entry.mode,
    permissions: entry.permissions,
    owner: entry.owner,
    group: entry.group,
    modifiedAt: new Date(entry.modified_at * 1000),
    symlinkTarget: entry.symlink_target,
    targetType: entry.target_type,
  }
}

/**
 * Output comes as text, or as base64 for both streams when either is not UTF-8; the result has both forms whichever came. An
 * older platform that says nothing of `oom_killed` has not killed.
 */
export function execResult(result: wire.ExecResult): ExecResult {
  const bytes = (text: string) => (result.encoding === 'base64' ? fromBase64(text) : toBytes(text))
  const text = (raw: string) => (result.encoding === 'base64' ? toText(fromBase64(raw)) : raw)
  return {
    stdout: text(result.stdout),
    stderr: text(result.stderr),
    stdoutBytes: bytes(result.stdout),
    stderrBytes: bytes(result.stderr),
    exitCode: result.exit_code,
    signal: result.signal,
    timedOut: result.timed_out,
    truncated: result.truncated,
    oomKilled: result.oom_killed ?? false,
    durationMs: result.duration_ms,
    rolledBack: result.rolled_back,
  }
}

/** `pauseWindowMs` is only in the answer to its making; listed checkpoints lack it. */
export function checkpointInfo(checkpoint: wire.Checkpoint): CheckpointInfo {
  return {
    id: checkpoint.id,
    capsuleId: checkpoint.capsule_id,
    name: checkpoint.name,
    parentId: checkpoint.parent_id,
    current: checkpoint.current,
    createdAt: new Date(checkpoint.created_at),
    sizeBytes: checkpoint.size_bytes,
    durable: checkpoint.durable,
    durableAt: date(checkpoint.durable_at),
    pauseWindowMs: checkpoint.pause_window_ms,
  }
}

/** `path` is the one text form of names; `pathBytes` is there where that has escapes, for who compares with names of elsewhere. */
export function fileChange({ change, path, path_encoding, type, size, what }: wire.FileChange): FileChange {
  if (path_encoding !== 'base64') return { change, path, pathBytes: escapedBytes(path), type, sizeBytes: size, what }
  // A server from before there was one text form of names.
  const pathBytes = fromBase64(path)
  return { change, path: toText(pathBytes), pathBytes, type, sizeBytes: size, what }
}

/** A key, without what authenticates. */
export function apiKeyInfo(key: wire.ApiKey): ApiKeyInfo {
  return {
    id: key.id,
    name: key.name,
    prefix: key.key_prefix,
    scopes: key.scopes,
    createdBy: key.created_by,
    createdAt: new Date(key.created_at),
    expiresAt: date(key.expires_at),
    lastUsedAt: date(key.last_used),
  }
}

/** An account of a person. */
export function userInfo(user: wire.User): UserInfo {
  return {
    id: user.id,
    email: user.email,
    name: user.name,
    status: user.status,
    isAdmin: user.is_admin,
    createdAt: new Date(user.created_at),
    eraseAt: user.erase_at === undefined ? undefined : new Date(user.erase_at),
  }
}

/** A session that was begun, goes on or has moved; the server leaves out tokens that are in cookies. */
export function signedIn(auth: wire.Auth): SignedIn {
  return {
    sessionId: auth.session_id,
    userId: auth.user_id,
    teamId: auth.team_id,
    email: auth.email,
    name: auth.name,
    expiresAt: new Date(auth.expires_at),
    token: auth.token,
    refreshToken: auth.refresh_token,
  }
}

/** One's own account. */
export function meInfo(me: wire.Me): MeInfo {
  return {
    id: me.id,
    email: me.email,
    name: me.name,
    hasPassword: me.has_password,
    providers: me.providers,
    isAdmin: me.is_admin,
    teamId: me.team_id,
    role: me.role,
    permissions: me.permissions ?? [],
    features: me.features ?? [],
  }
}

/** A session of a person. */
export function sessionInfo(session: wire.Session): SessionInfo {
  return {
    id: session.id,
    teamId: session.team_id,
    isCurrent: session.current,
    ip: session.ip,
    userAgent: session.user_agent,
    createdAt: new Date(session.created_at),
    lastUsedAt: new Date(session.last_used),
    expiresAt: new Date(session.expires_at),
  }
}

/** An entry of the audit trail; exports have the wire's form, which the hashes are over. */
export function auditEntry(entry: wire.AuditEntry): AuditEntry {
  return {
    id: entry.id,
    createdAt: new Date(entry.created_at),
    actorType: entry.actor_type,
    actorId: entry.actor_id,
    actorName: entry.actor_email ?? entry.actor_name,
    action: entry.action,
    resourceType: entry.resource_type,
    resourceId: entry.resource_id,
    resourceEmail: entry.resource_email,
    scope: entry.scope,
    outcome: entry.outcome,
    requestId: entry.request_id,
    ip: entry.ip,
    details: entry.details,
    seq: entry.seq,
    hash: entry.hash,
  }
}

/** The wire says `null` where there is no limit, because JSON has no `undefined`. */
export function quota(answer: wire.Quota): Quota {
  const use = ({ used, limit }: { used: number; limit: number | null }): QuotaUse => ({
    used,
    limit: limit ?? undefined,
  })
  return {
    runningCapsules: use(answer.running_capsules),
    vcpus: use(answer.vcpus),
    memoryMib: use(answer.memory_mb),
    poolBytes: use(answer.pool_bytes),
    capsules: use(answer.capsules),
    creatingCapsules: use(answer.creating_capsules),
    apiCallsPerMin: use(answer.api_calls_per_min),
    plan: answer.plan ?? undefined,
  }
}

/** Of an answer to a request without a range, which always has it. */
export function capsuleMetrics({ current }: wire.CapsuleMetrics): CapsuleMetrics {
  if (current === undefined) {
    throw new WrennError('The server has answered without what the capsule uses now.', { code: 'internal' })
  }
  return {
    timestamp: new Date(current.timestamp),
    cpuPct: current.cpu_pct,
    cpuCount: current.cpu_count,
    memoryUsedBytes: current.mem_used_bytes,
    memoryTotalBytes: current.mem_total_bytes,
    diskUsedBytes: current.disk_used_bytes,
    diskTotalBytes: current.disk_total_bytes,
    hostRssBytes: current.host_rss_bytes,
  }
}

export function metricsHistory({ range, step_sec, points }: wire.CapsuleMetrics): MetricsHistory {
  return { range, stepMs: step_sec * 1000, points: points.map(metricsPoint) }
}

function metricsPoint(point: wire.CapsuleMetrics['points'][number]): MetricsPoint {
  return {
    timestamp: new Date(point.timestamp_unix * 1000),
    cpuPct: point.cpu_pct,
    cpuMaxPct: point.cpu_max_pct ?? point.cpu_pct,
    memoryBytes: point.mem_bytes,
    diskBytes: point.disk_bytes,
    ...(point.net_rx_bytes === undefined ? {} : { netRxBytes: point.net_rx_bytes }),
    ...(point.net_tx_bytes === undefined ? {} : { netTxBytes: point.net_tx_bytes }),
  }
}
