export {
  ARCHIVE_TYPE,
  type ArchiveEnd,
  ArchiveFrameError,
  ArchiveUnframer,
  endFrame,
  FRAMED_ARCHIVE_TYPE,
  frameHead,
} from './archive-frames.js'
export { AUDIT_GENESIS, auditText } from './audit-text.js'
export {
  BINARY_SUBPROTOCOL,
  type BinaryFrame,
  type BinaryKind,
  decodeBinaryFrame,
  encodeBinaryFrame,
} from './binary-frames.js'
export { type BuildState, buildStates } from './build-states.js'
export {
  type ChannelField,
  type ChannelProvider,
  type ChannelTarget,
  channelFilters,
  channelProviders,
  channelTargets,
} from './channel-targets.js'
export {
  ACCESS_TOKEN_PREFIX,
  CSRF_HEADER,
  PORT_TOKEN_HEADER,
  PORT_TOKEN_QUERY,
  REFRESH_TOKEN_PREFIX,
  WEBHOOK_SECRET_PREFIX,
} from './credentials.js'
export {
  DockerfileWordError,
  expandDockerfileWord,
  type Lookup,
  MAX_WORD_LENGTH,
  splitDockerfileWords,
} from './dockerfile-words.js'
export {
  ERROR_CODE_HEADER,
  type ErrorCode,
  type ErrorKind,
  errorKind,
  errorTable,
  isErrorCode,
  RETRY_AFTER_HEADER,
} from './errors.js'
export { eventPermissions, isOfPlatform, permissionForEvent } from './event-types.js'
export { type HostAddress, parseHostAddress } from './host-address.js'
export { formatImageReference, type ImageReference, parseImageReference } from './image-reference.js'
export { isMailAddress } from './mail-address.js'
export { type MetricsRange, metricsRanges } from './metrics-ranges.js'
export {
  grants,
  isScope,
  type Permission,
  permissions,
  permissionsOf,
  platformScopes,
  type Scope,
  scopes,
  scopesFor,
  teamScopes,
} from './permissions.js'
export * from './rest/index.js'
export { isRole, permissionsOfRole, type Role, roleGrants, roles, rolesFor } from './roles.js'
export { shellLine } from './shell-line.js'
export {
  type CapsuleCommand,
  type CapsuleState,
  capsuleCommands,
  capsuleStates,
  capsuleTransitions,
  heldIn,
  isAsleep,
  isUsable,
  nextState,
  type WireStatus,
  wireStatus,
  wireStatuses,
} from './states.js'
export { type StatsRange, statsRanges } from './stats-ranges.js'
export {
  readTemplateTail,
  TEMPLATE_ARCHIVE_TYPE,
  TEMPLATE_ARCHIVE_VERSION,
  TEMPLATE_SEAL_BYTES,
  TEMPLATE_TAIL_BYTES,
  type TemplateTail,
  templateLabel,
  templateSeal,
} from './template-archive.js'
export { templateBuildLimits } from './template-build-limits.js'
export {
  CLIENT_LINE_PATH,
  CLIENT_LINE_PROTOCOL,
  GUEST_AGENT_PORT,
  LEASE_PROTOCOL,
  leasePath,
  parseLeasePath,
  parseTunnelPath,
  TUNNEL_PROTOCOL,
  type TunnelTarget,
  tunnelPath,
} from './tunnel.js'
