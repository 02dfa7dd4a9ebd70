/** What an error carries beside code and sentence: facts for the caller, and the reason for us. */
export interface AppErrorOptions {
  /** Machine-readable facts for the caller; goes over the wire, so never secrets. */
  readonly details?: Readonly<Record<string, unknown>>
  /** Logged, never sent. */
  readonly cause?: unknown
}

/**
 * The one error class of the product. `code` is a key of the error table in `@wrenn/protocol`, which gives its HTTP status,
 * hint and whether a retry can help. A plain `Error` is a bug of ours and becomes `internal`.
 */
export class AppError extends Error {
  override readonly name = 'AppError'
  /** A key of the error table of `@wrenn/protocol`, which this package cannot import; an unknown one counts as `internal`. */
  readonly code: string
  readonly details: Readonly<Record<string, unknown>> | undefined

  constructor(code: string, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.details = options.details
  }

  /** Wraps anything thrown; an `AppError` comes back as it is. */
  static from(thrown: unknown): AppError {
    const first = firstFailure(thrown)
    if (first instanceof AppError) return first
    return new AppError('internal', 'Something went wrong inside Wrenn.', { cause: first })
  }

  /** True when `thrown` is an `AppError` with one of `codes`. */
  static is(thrown: unknown, ...codes: readonly string[]): thrown is AppError {
    return thrown instanceof AppError && (codes.length === 0 || codes.includes(thrown.code))
  }
}

/**
 * What failed first: when the clean-up of a `using` fails too, the language throws the clean-up's failure, as a `SuppressedError`
 * that has the other one inside. A caller is helped by what went wrong, not by what went wrong after it.
 */
export function firstFailure(thrown: unknown): unknown {
  let first = thrown
  while (first instanceof Error && first.name === 'SuppressedError' && 'suppressed' in first) first = first.suppressed
  return first
}

/** The text of anything thrown, for logs and messages. */
export function errorText(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}

/** True for a Node system error with one of these codes (`ENOENT`, …). */
export function isErrno(thrown: unknown, ...codes: readonly string[]): thrown is NodeJS.ErrnoException {
  return thrown instanceof Error && 'code' in thrown && codes.includes(String(thrown.code))
}
