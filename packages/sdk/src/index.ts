export {
  type AttachOptions,
  Capsule,
  type Command,
  type ExecOptions,
  type FollowOptions,
  type ProcessOptions,
  type PtyOptions,
  type StartOptions,
  type StreamOptions,
} from './capsule.js'
export { Capsules, type CreateOptions, type ListCapsulesOptions } from './capsules.js'
export { Templates, Wrenn, type WrennOptions } from './client.js'
export {
  AuthenticationError,
  CapsuleNotFoundError,
  ConnectionError,
  FileNotFoundError,
  InvalidStateError,
  LimitError,
  ProcessNotFoundError,
  TemplateNotFoundError,
  TimeoutError,
  WrennError,
  type WrennErrorOptions,
} from './errors.js'
export { type FileContent, type FileOptions, Files, type ListOptions, type ReadOptions } from './files.js'
export { type ProcessEvent, type ProcessExit, ProcessHandle, PtyHandle } from './process.js'
export type { WebSocketConstructor, WebSocketLike } from './socket.js'
export type { CallOptions } from './transport.js'
export type {
  CapsuleExitInfo,
  CapsuleInfo,
  CapsuleMetrics,
  CapsuleState,
  EgressPolicy,
  ExecResult,
  FileInfo,
  ProcessInfo,
  SignalName,
  TemplateInfo,
} from './types.js'
