export {
  AUDIT_GENESIS,
  auditText,
  type CapsuleCommand,
  type ChannelField,
  type ChannelTarget,
  channelFilters,
  channelTargets,
  formatImageReference,
  type ImageReference,
  isOfPlatform,
  metricsRanges,
  nextState,
  parseImageReference,
  readTemplateTail,
  statsRanges,
  TEMPLATE_SEAL_BYTES,
  TEMPLATE_TAIL_BYTES,
  type TemplateTail,
} from '@wrenn/protocol'
export {
  Account,
  type DeviceLogin,
  type LoginOptions,
  type NewPerson,
  type SecondFactorProof,
  type WaitingDevice,
} from './account.js'
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
  type SnapshotOptions,
  type StartOptions,
  type StreamOptions,
  type UpdateOptions,
} from './capsule.js'
export { Capsules, type CreateOptions, type ListCapsulesOptions } from './capsules.js'
export {
  type ChannelConfig,
  type ChannelInfo,
  type ChannelProvider,
  Channels,
  type CreateChannelOptions,
  type DeliveryInfo,
  type ListDeliveriesOptions,
  type UpdateChannelOptions,
} from './channels.js'
export type { CheckpointRef, DiffOptions } from './checkpoints.js'
export { Wrenn, type WrennOptions } from './client.js'
export {
  type DestinationInfo,
  Egress,
  type EgressInfo,
  type EgressRuleWish,
  type EgressStatus,
  type EgressWish,
  type LearnedInfo,
  type RefusalInfo,
} from './egress.js'
export {
  AuthenticationError,
  CapsuleNotFoundError,
  CheckpointNotFoundError,
  ConnectionError,
  FileNotFoundError,
  type HalfLogin,
  InvalidStateError,
  LimitError,
  ProcessNotFoundError,
  SecondFactorNeededError,
  StateNotLoadableError,
  TemplateNotFoundError,
  TimeoutError,
  WrennError,
  type WrennErrorOptions,
} from './errors.js'
export { Events, type FollowEventsOptions, type WrennEvent, type WrennEventType } from './events.js'
export {
  type AddedPasskey,
  Factors,
  type FactorsInfo,
  type PasskeyInfo,
  type PasskeyJson,
  type TotpEnrolment,
} from './factors.js'
export {
  type FileContent,
  type FileOptions,
  Files,
  type ListOptions,
  type OpenFile,
  type ReadArchiveOptions,
  type ReadOptions,
  type WriteOptions,
} from './files.js'
export {
  type CapsuleMoveInfo,
  type DrainedCapsule,
  type DrainOptions,
  type HostDrainInfo,
  type HostInfo,
  Hosts,
  type MoveOptions,
  type NewHost,
  type RemoveHostOptions,
} from './hosts.js'
export type { LifecycleOptions, ResumeOptions } from './lifecycle.js'
export type { Opening } from './opening.js'
export {
  type AnyCapsuleInfo,
  type HealthProblem,
  type HostHealth,
  type HostStatus,
  type LagoHealth,
  type ListAnyCapsulesOptions,
  Platform,
  type PlatformHealth,
} from './platform.js'
export type { PortsInfo } from './ports.js'
export { type ProcessEvent, type ProcessExit, ProcessHandle, PtyHandle } from './process.js'
export { type ProviderInfo, Providers } from './providers.js'
export {
  type ImageFileOptions,
  imageFileRecipe,
  imageRecipe,
  type Recipe,
  type RecipeImageFile,
  type RecipeSecret,
  type RecipeStage,
  type RecipeStep,
  type RecipeUpload,
} from './recipe.js'
export { Registries, type RegistryLoginInfo } from './registries.js'
export type { ConnectionState } from './session.js'
export { Sessions } from './sessions.js'
export type { WebSocketConstructor, WebSocketLike } from './socket.js'
export {
  type AnyTeamInfo,
  type InviteOptions,
  type ListedTeamInfo,
  type PlanInfo,
  type PlanLimits,
  type SetLimitsOptions,
  type TeamInfo,
  type TeamInvitation,
  type TeamLimits,
  type TeamMember,
  type TeamRole,
  Teams,
} from './teams.js'
export {
  type BuildInfo,
  type BuildLine,
  type BuildState,
  type BuildTemplateOptions,
  type ListBuildsOptions,
  type ListTemplatesOptions,
  type StartBuildOptions,
  Templates,
} from './templates.js'
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
  type EgressRule,
  type ExecResult,
  type FileChange,
  type FileInfo,
  type MeInfo,
  type MetricsHistory,
  type MetricsPoint,
  type MetricsRange,
  type PauseReason,
  type PortAccess,
  type ProcessInfo,
  type Quota,
  type QuotaUse,
  type SessionInfo,
  type SignalName,
  type SignedIn,
  type TemplateInfo,
  type Timing,
  type UserInfo,
} from './types.js'
export {
  type AnyUsageInfo,
  type CapsuleLevels,
  type CapsuleStats,
  type ExactUsage,
  type RecomputedUsageInfo,
  type StatsRange,
  type TeamUsage,
  Usage,
  type UsageCheck,
  type UsageInfo,
  type UsageOptions,
  type UsagePoint,
  type UsageSpan,
  type UsageSums,
} from './usage.js'
export { type CreateUserOptions, type NewUserInfo, type UpdateUserOptions, Users } from './users.js'
export { type VerifyWebhookOptions, verifyWebhook, type WebhookEvent, type WebhookRequest } from './webhooks.js'
