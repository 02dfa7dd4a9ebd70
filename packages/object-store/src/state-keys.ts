import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes, webcrypto } from 'node:crypto'

/** Whose states these are. */
export interface StoredTeam {
  /** Part of the keys of all its objects: letters, digits and `-`. */
  readonly id: string
  /** 32 bytes, of which all others are derived. It is kept nowhere. */
  readonly key: Buffer
}

const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16
/** Of what is sealed, beside its content. */
export const SEAL_BYTES = NONCE_BYTES + TAG_BYTES
const CIPHER = 'aes-256-gcm'
const DOMAIN = 'wrenn stored state v1'

/**
 * What a team's objects are named and encrypted with, all derived from its key by HKDF. A chunk's name is a keyed hash of its content, so the
 * server sees which chunks of one team are equal, and nothing of what they are.
 */
export class StateKeys {
  readonly #ids: Promise<webcrypto.CryptoKey>
  readonly #chunks: Buffer
  readonly #manifests: Buffer
  /** Tells a manifest of another key from a damaged one. */
  readonly check: Buffer

  constructor({ id, key }: StoredTeam) {
    if (key.length !== KEY_BYTES) throw new Error(`a team's key has ${KEY_BYTES} bytes`)
    const derive = (use: string) => Buffer.from(hkdfSync('sha256', key, '', `${DOMAIN}: ${use} of ${id}`, KEY_BYTES))
    const hmac = { name: 'HMAC', hash: 'SHA-256' }
    this.#ids = webcrypto.subtle.importKey('raw', derive('chunk names'), hmac, false, ['sign'])
    this.#ids.catch(() => {}) // awaited where it is used
    this.#chunks = derive('chunks')
    this.#manifests = derive('manifests')
    this.check = derive('check').subarray(0, 8)
  }

  /** Names a chunk by its content; computed beside the event loop. */
  async chunkId(plain: Uint8Array): Promise<Buffer> {
    return Buffer.from(await webcrypto.subtle.sign('HMAC', await this.#ids, plain as Uint8Array<ArrayBuffer>))
  }

  sealChunk(id: Buffer, header: Buffer, content: Uint8Array): Buffer {
    return seal(this.#chunkKey(id), Buffer.concat([header, id]), content)
  }

  /** @returns `undefined` when a bit of content, header or name is another, or the key */
  openChunk(id: Buffer, header: Buffer, sealed: Buffer): Buffer | undefined {
    return unseal(this.#chunkKey(id), Buffer.concat([header, id]), sealed)
  }

  sealManifest(state: string, header: Buffer, content: Uint8Array): Buffer {
    return seal(this.#manifests, Buffer.concat([header, Buffer.from(state)]), content)
  }

  /** @returns `undefined` when a bit of content, header or name is another, or the key */
  openManifest(state: string, header: Buffer, sealed: Buffer): Buffer | undefined {
    return unseal(this.#manifests, Buffer.concat([header, Buffer.from(state)]), sealed)
  }

  /** Each chunk has a key of its own: random nonces of one key are safe for 2^32 messages only (NIST SP 800-38D §8.3). */
  #chunkKey(id: Buffer): Buffer {
    return createHmac('sha256', this.#chunks).update(id).digest()
  }
}

function seal(key: Buffer, context: Buffer, content: Uint8Array): Buffer {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv(CIPHER, key, nonce).setAAD(context)
  const body = cipher.update(content)
  cipher.final()
  return Buffer.concat([nonce, body, cipher.getAuthTag()])
}

function unseal(key: Buffer, context: Buffer, sealed: Buffer): Buffer | undefined {
  if (sealed.length < SEAL_BYTES) return undefined
  const decipher = createDecipheriv(CIPHER, key, sealed.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES })
  decipher.setAAD(context).setAuthTag(sealed.subarray(-TAG_BYTES))
  try {
    const content = decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES))
    decipher.final()
    return content
  } catch {
    return undefined // the one thing that `final` throws for: the tag is another
  }
}
