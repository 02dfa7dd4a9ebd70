import { errorKind } from '@wrenn/protocol'

/** What a failure knows beyond its sentence. */
export interface WrennErrorOptions {
  /** Of the server's table (docs/errors.md), or `connection_failed`, `connection_lost` and `second_factor_needed`, which only this client has. */
  readonly code: string
  /** HTTP status; 0 when there was no answer. */
  readonly status?: number
  /** @default that of the code, where it has one */
  readonly hint?: string
  /** Of the answer; `undefined` where a proxy answered instead of the platform. */
  readonly requestId?: string
  /** Machine-readable facts; `retryAfterSec` when the server said when to come back. */
  readonly details?: Readonly<Record<string, unknown>>
  /** What was thrown below, such as the failure of `fetch`. */
  readonly cause?: unknown
}

/** Every failure of this client. Branch on `code` (listed in docs/errors.md) or on a subclass. */
export class WrennError extends Error {
  override readonly name: string = 'WrennError'
  /** What to branch on; it stays the same while messages may change. */
  readonly code: string
  /** HTTP status; 0 when there was no answer, and for errors of a stream. */
  readonly status: number
  /** The next step, for a person. */
  readonly hint: string | undefined
  /** What the operator needs to find the request in the logs. */
  readonly requestId: string | undefined
  /** Machine-readable facts, such as `retryAfterSec`, or `max` of a limit. */
  readonly details: Readonly<Record<string, unknown>> | undefined

  constructor(message: string, options: WrennErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = options.code
    this.status = options.status ?? 0
    this.hint = options.hint
    this.requestId = options.requestId
    this.details = options.details
  }

  /** Whether the same call may succeed later without a change. */
  get isRetryable(): boolean {
    return this.code === 'connection_failed' || errorKind(this.code).retryable
  }
}

/** The key is missing, wrong or not allowed to do this. */
export class AuthenticationError extends WrennError {
  override readonly name = 'AuthenticationError'
}
/**
 * The team has no capsule of this id; another team's is as if it were not there. One that ended keeps its record for a while.
 */
export class CapsuleNotFoundError extends WrennError {
  override readonly name = 'CapsuleNotFoundError'
}
/** No built-in template and no snapshot of the team has this name or alias. */
export class TemplateNotFoundError extends WrennError {
  override readonly name = 'TemplateNotFoundError'
}
/** This capsule has no checkpoint of this id or name; ids are looked up within one capsule only. */
export class CheckpointNotFoundError extends WrennError {
  override readonly name = 'CheckpointNotFoundError'
}
/**
 * The capsule has no such pid or tag among the processes started through the API; one that ended is forgotten with its
 * output.
 */
export class ProcessNotFoundError extends WrennError {
  override readonly name = 'ProcessNotFoundError'
}
/** Nothing is at the path, or a parent is missing. `Files.exists` answers false instead. */
export class FileNotFoundError extends WrennError {
  override readonly name = 'FileNotFoundError'
}
/** The capsule's state does not allow the call. */
export class InvalidStateError extends WrennError {
  override readonly name = 'InvalidStateError'
}
/**
 * The saved memory cannot be loaded by what the host runs now; nothing of it was touched. `resume({ from: 'disk' })` and
 * `rollback(checkpoint, { from: 'disk' })` start the capsule from its files.
 */
export class StateNotLoadableError extends WrennError {
  override readonly name = 'StateNotLoadableError'
}
/** A limit was reached; try again later or make room. */
export class LimitError extends WrennError {
  override readonly name = 'LimitError'
}
/** Something took longer than the time given to it; the message names the option. */
export class TimeoutError extends WrennError {
  override readonly name = 'TimeoutError'
}
/** No answer: the server is not there, or the connection broke. */
export class ConnectionError extends WrennError {
  override readonly name = 'ConnectionError'
}

/** What a login lacks that is half done. */
export interface HalfLogin {
  /** For `account.finishLogin`, once, within 5 minutes, from the same place. */
  readonly token: string
  /** `passkey`, `totp`, `recovery_code`: any of these will do, the best one first. Others may come. */
  readonly methods: readonly string[]
  readonly expiresAt: Date
}

/** The password was right, and the account has more than that: `account.finishLogin` goes on. */
export class SecondFactorNeededError extends WrennError {
  override readonly name = 'SecondFactorNeededError'
  readonly login: HalfLogin

  constructor(login: HalfLogin) {
    super('The login needs a second factor.', { code: 'second_factor_needed', status: 200 })
    this.login = login
  }
}

const classes: Readonly<Record<string, new (message: string, options: WrennErrorOptions) => WrennError>> = {
  unauthorized: AuthenticationError,
  forbidden: AuthenticationError,
  capsule_not_found: CapsuleNotFoundError,
  template_not_found: TemplateNotFoundError,
  checkpoint_not_found: CheckpointNotFoundError,
  process_not_found: ProcessNotFoundError,
  file_not_found: FileNotFoundError,
  invalid_state: InvalidStateError,
  state_not_loadable: StateNotLoadableError,
  limit_exceeded: LimitError,
  pool_exhausted: LimitError,
  timeout: TimeoutError,
  connection_failed: ConnectionError,
  connection_lost: ConnectionError,
}

/** The error of the class that its code has. */
export function createError(message: string, options: WrennErrorOptions): WrennError {
  const Class = (Object.hasOwn(classes, options.code) ? classes[options.code] : undefined) ?? WrennError
  const hint = options.hint ?? errorKind(options.code).hint
  return new Class(message, { ...options, ...(hint ? { hint } : {}) })
}
