export { AUDIT_GENESIS, auditText } from '@wrenn/protocol'
export { ApiKeys, type CreateApiKeyOptions } from './api-keys.js'
export { Audit, type ExportAuditOptions, type ListAuditOptions } from './audit.js'
export {
  type AttachOptions,
  Capsule,
  type Command,
  type ExecOptions,
  type FollowOptions,
  type ForkOptions,
  type Forks,
  type ProcessOptions,
  type PtyOptions,
  type StartOptions,
  type StreamOptions,
  type UpdateOptions,
} from './capsule.js'
export { Capsules, type CreateOptions, type ListCapsulesOptions } from './capsules.js'
export type { CheckpointRef, DiffOptions } from './checkpoints.js'
export { type ListTemplatesOptions, Templates, Wrenn, type WrennOptions } from './client.js'
export { Egress, type EgressInfo } from './egress.js'
export {
  AuthenticationError,
  CapsuleNotFoundError,
  CheckpointNotFoundError,
  ConnectionError,
  FileNotFoundError,
  InvalidStateError,
  LimitError,
  ProcessNotFoundError,
  StateNotLoadableError,
  TemplateNotFoundError,
  TimeoutError,
  WrennError,
  type WrennErrorOptions,
} from './errors.js'
export {
  type FileContent,
  type FileOptions,
  Files,
  type ListOptions,
  type ReadArchiveOptions,
  type ReadOptions,
  type WriteOptions,
} from './files.js'
export type { LifecycleOptions, ResumeOptions } from './lifecycle.js'
export type { Opening } from './opening.js'
export type { PortsInfo } from './ports.js'
export { type ProcessEvent, type ProcessExit, ProcessHandle, PtyHandle } from './process.js'
export type { ConnectionState } from './session.js'
export type { WebSocketConstructor, WebSocketLike } from './socket.js'
export {
  type InviteOptions,
  type ListedTeamInfo,
  type TeamInfo,
  type TeamInvitation,
  type TeamMember,
  type TeamRole,
  Teams,
} from './teams.js'
export type { CallOptions } from './transport.js'
export {
  type ApiKeyInfo,
  type ApiKeyScope,
  type AuditEntry,
  type AwakeReason,
  apiKeyScopes,
  type CapsuleExitInfo,
  type CapsuleInfo,
  type CapsuleMetrics,
  type CapsuleState,
  type CheckpointInfo,
  type EgressPolicy,
  type ExecResult,
  type FileChange,
  type FileInfo,
  type PauseReason,
  type PortAccess,
  type ProcessInfo,
  type Quota,
  type QuotaUse,
  type SignalName,
  type TemplateInfo,
  type Timing,
  type UserInfo,
} from './types.js'
export { type CreateUserOptions, type NewUserInfo, type UpdateUserOptions, Users } from './users.js'
