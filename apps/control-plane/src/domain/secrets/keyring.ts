import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, randomBytes } from 'node:crypto'
import { AppError } from '@wrenn/base'

const KEY_BYTES = 32
/** NIST SP 800-38D §5.2.1.1: the length for which GCM is made. */
const IV_BYTES = 12
const TAG_BYTES = 16
const VERSION = 'v1'

/** A key as settings and files have it: 64 hexadecimal digits, or base64 of 32 bytes. `undefined` for all else. */
export function parseKey(text: string): Buffer | undefined {
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex')
  const bytes = /^[A-Za-z0-9+/_-]{43}=?$/.test(text) ? Buffer.from(text, 'base64') : undefined
  return bytes?.length === KEY_BYTES ? bytes : undefined
}

/** What was encrypted, and whether that was by the key that encrypts now. */
export interface Opened {
  readonly text: string
  readonly isCurrent: boolean
}

/**
 * Keeps secrets that the platform itself must be able to read, so that the database, or a backup of it, is not enough to have them: AES-256-GCM
 * under a key from outside. Several keys may be given: the first one encrypts, each opens what was encrypted by it, and whoever
 * finds one that is not current encrypts it anew.
 */
export class Keyring {
  readonly #keys: ReadonlyMap<string, Buffer>
  readonly #currentId: string | undefined

  /** None: nothing can be kept. */
  constructor(keys: readonly Buffer[]) {
    this.#keys = new Map(keys.map((key) => [keyId(key), key]))
    this.#currentId = keys[0] && keyId(keys[0])
  }

  /** Whether it has no key, as a process has that keeps and reads no secrets. */
  get isEmpty(): boolean {
    return this.#keys.size === 0
  }

  /** Whether it opens what was sealed by the key of this id. */
  has(id: string): boolean {
    return this.#keys.has(id)
  }

  /** How all begins that the current key has sealed. @throws AppError `not_supported` without a key */
  get sealPrefix(): string {
    return `${VERSION}.${this.#current().id}.`
  }

  /**
   * A key of its own for something else than secrets of this keyring, by HKDF of one of its keys.
   * @param prefix `sealPrefix` of whoever derived it first. @default that of the current key
   * @throws AppError `not_supported` that names the key which is not there
   */
  derive(context: string, prefix = this.sealPrefix): { readonly key: Buffer; readonly keyId: string } {
    const keyId = prefix.split('.')[1] ?? ''
    const key = this.#keys.get(keyId)
    if (key === undefined) {
      throw new AppError('not_supported', `It was encrypted by the key ${keyId}, which WRENN_ENCRYPTION_KEY lacks.`)
    }
    return { key: Buffer.from(hkdfSync('sha256', key, '', `wrenn derive ${context}`, KEY_BYTES)), keyId }
  }

  /**
   * Tells texts apart, and is no help in guessing one to who lacks the key. Another key gives another.
   * @throws AppError `not_supported` without a key
   */
  digest(text: string, context: string): string {
    const { key } = this.#current()
    const own = createHmac('sha256', key).update(`wrenn digest ${context}`).digest()
    return createHmac('sha256', own).update(text).digest('base64url')
  }

  /**
   * `v1.<id of the key>.<base64url>`.
   * @param context what the secret is and whose: in another place it does not open
   * @throws AppError `not_supported` without a key
   */
  seal(text: string, context: string): string {
    const { id, key } = this.#current()
    const iv = randomBytes(IV_BYTES)
    const cipher = createCipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
    cipher.setAAD(Buffer.from(`${VERSION}.${id}.${context}`))
    const sealed = Buffer.concat([iv, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()])
    return `${VERSION}.${id}.${sealed.toString('base64url')}`
  }

  /** @throws AppError `not_supported` that names the key which is not there; Error when it was changed or is of another place */
  open(sealed: string, context: string): Opened {
    const [version, id = '', body = ''] = sealed.split('.')
    const key = version === VERSION ? this.#keys.get(id) : undefined
    if (key === undefined) {
      throw new AppError('not_supported', `A secret was encrypted by the key ${id}, which WRENN_ENCRYPTION_KEY lacks.`)
    }
    const bytes = Buffer.from(body, 'base64url')
    const [iv, tag] = [bytes.subarray(0, IV_BYTES), bytes.subarray(-TAG_BYTES)]
    const cipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES })
    cipher.setAAD(Buffer.from(`${VERSION}.${id}.${context}`))
    cipher.setAuthTag(tag)
    const text = Buffer.concat([cipher.update(bytes.subarray(IV_BYTES, -TAG_BYTES)), cipher.final()]).toString('utf8')
    return { text, isCurrent: id === this.#currentId }
  }

  #current(): { readonly id: string; readonly key: Buffer } {
    const id = this.#currentId
    const key = id === undefined ? undefined : this.#keys.get(id)
    if (id !== undefined && key !== undefined) return { id, key }
    throw new AppError('not_supported', 'This platform has no key to keep secrets with: WRENN_ENCRYPTION_KEY.')
  }
}

/** Tells keys apart, and nothing about them. */
function keyId(key: Buffer): string {
  return createHash('sha256').update('wrenn key id').update(key).digest('hex').slice(0, 8)
}
