import { randomBytes } from 'node:crypto'
import { hash, verify } from '@node-rs/argon2'
import { AppError } from '@wrenn/base'

/** Of argon2id, which is the package's default: OWASP's second choice, 19 MiB and 2 passes. The text form of a hash carries them, so they can be raised. */
const options = { memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const
/** At once: 19 MiB and a thread each. */
const MAX_AT_ONCE = 2
/** Those that wait hold a password and no memory to speak of; who comes later would wait for seconds. */
const MAX_WAITING = 64
const RETRY_AFTER_SEC = 5

interface PasswordsDeps {
  /** @default 2 */
  readonly maxAtOnce?: number
  /** @default 64 */
  readonly maxWaiting?: number
}

/** Hashes and checks passwords with argon2id, few at a time: however many come, they take bounded memory and leave CPU to others. */
export class Passwords {
  readonly #maxAtOnce: number
  readonly #maxWaiting: number
  readonly #waiting: (() => void)[] = []
  /** Of a password that nobody has. */
  #nobodys: Promise<string> | undefined
  #running = 0

  constructor({ maxAtOnce = MAX_AT_ONCE, maxWaiting = MAX_WAITING }: PasswordsDeps = {}) {
    this.#maxAtOnce = maxAtOnce
    this.#maxWaiting = maxWaiting
  }

  /** @throws AppError `limit_exceeded` when too many wait already */
  async hash(password: string): Promise<string> {
    return await this.#inTurn(() => hash(normalized(password), options))
  }

  /**
   * Whether it is the password. Without a hash, because there is no such account or it has no password, the answer is false and takes as
   * long.
   * @throws AppError `limit_exceeded` when too many wait already
   */
  async verify(passwordHash: string | null | undefined, password: string): Promise<boolean> {
    this.#nobodys ??= hash(randomBytes(16), options)
    const nobodys = await this.#nobodys
    const isRight = await this.#inTurn(() => verify(passwordHash ?? nobodys, normalized(password)))
    return isRight && passwordHash !== null && passwordHash !== undefined
  }

  async #inTurn<T>(task: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#maxAtOnce) await this.#turn()
    else this.#running++
    try {
      return await task()
    } finally {
      const next = this.#waiting.shift()
      // Its turn passes on as it is.
      if (next === undefined) this.#running--
      else next()
    }
  }

  async #turn(): Promise<void> {
    if (this.#waiting.length >= this.#maxWaiting) {
      throw new AppError('limit_exceeded', 'Too many passwords are being checked at this moment.', {
        details: { retryAfterSec: RETRY_AFTER_SEC },
      })
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }
}

/** The same characters, however a keyboard composes them (NIST SP 800-63B §5.1.1.2). */
function normalized(password: string): string {
  return password.normalize('NFKC')
}
