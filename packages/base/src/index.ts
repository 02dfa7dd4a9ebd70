export { abortable } from './abortable.js'
export { acceptBoth } from './accept-both.js'
export { removeEntries, removeUnfinished, writeFileAtomic } from './atomic-file.js'
export { type BoundOptions, boundCommand, type RunAs } from './bound-command.js'
export { boundedText } from './bounded-text.js'
export { loadConfig } from './config.js'
export { ACCEPTED_CODINGS, codingError, contentCoding, unpacked } from './content-coding.js'
export { DirectoryLock } from './directory-lock.js'
export { DomainSet, parseDomain, parseHostName } from './domain-names.js'
export { AppError, type AppErrorOptions, errorText, firstFailure, isErrno } from './errors.js'
export { signatureOf, verifySignature } from './file-signature.js'
export { groupBy } from './group-by.js'
export {
  type ApiKeyId,
  type AuditId,
  apiKeyIds,
  auditIds,
  type BuildId,
  buildIds,
  type CapsuleId,
  type ChannelId,
  type CheckpointId,
  capsuleIds,
  channelIds,
  checkpointIds,
  type HostId,
  hostIds,
  type InvitationId,
  invitationIds,
  type MailId,
  mailIds,
  passkeyIds,
  randomTag,
  type SecretId,
  type SessionId,
  type SnapshotId,
  secretIds,
  sessionIds,
  snapshotIds,
  type TeamId,
  teamIds,
  type UserId,
  userIds,
} from './ids.js'
export {
  type Cidr,
  contains,
  formatAddress,
  formatCidr,
  neverRangeOf,
  neverRanges,
  overlaps,
  parseAddress,
  parseCidr,
} from './ipv4.js'
export { breakOff, carry, joinSockets } from './join-sockets.js'
export { type KeyPair, requireFitting } from './key-pair.js'
export { endHolders, inheritedLifeline, lifelinePath } from './lifeline.js'
export { type Logger, silentLogger } from './logger.js'
export { KeyedMutex } from './mutex.js'
export { hasEscapes, pathBytes, pathText, pathTextFrom } from './path-text.js'
export {
  identify,
  isDying,
  isRunning,
  type ProcessId,
  processIdSchema,
  readProcessStat,
  signalProcess,
} from './process-id.js'
export { processStarter } from './process-starter.js'
export { queryText } from './query-text.js'
export { obstacleOn } from './reachable.js'
export { settleAll } from './settle-all.js'
export { starterLayout } from './starter-layout.js'
export { staticProgram } from './static-program.js'
export { noSteps, type ReachStep, stepsFromFile } from './steps.js'
export { hasExited, politeLadder, type StopStep, stopChild } from './stop-child.js'
export { inSpan, noTracer, type Span, type SpanFields, type SpanOptions, type Tracer } from './tracer.js'
export { UndoStack } from './undo-stack.js'
export { type WaitOptions, waitFor } from './wait.js'
