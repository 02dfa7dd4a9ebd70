import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { isoCBOR } from '@simplewebauthn/server/helpers'
import type { PasskeyAssertion, PasskeyAttestation, PasskeyOptions } from '@wrenn/protocol'

const PRESENT = 0x01
const VERIFIED = 0x04
const HAS_CREDENTIAL = 0x40

interface AuthenticatorOptions {
  /** Of the page that asks. */
  readonly origin: string
  /** A number that grows with each signature, as keys of metal have it; synced ones stay at 0. @default false */
  readonly counts?: boolean
}

interface CreateOptions extends SignOptions {
  /** What it says of its maker. @default none */
  readonly attestation?: { readonly format: string; readonly x5c?: readonly Uint8Array[] }
}

interface SignOptions {
  /** Whether it has made sure that its owner is there. @default true */
  readonly verified?: boolean
  readonly origin?: string
}

/** An authenticator with one passkey (WebAuthn Level 3, §6), as a page of `origin` reaches it. */
export class Authenticator {
  readonly #options: AuthenticatorOptions
  readonly #id = randomBytes(32)
  readonly #key: KeyObject
  readonly #publicKey: KeyObject
  #userHandle: string | undefined
  counter = 0

  constructor(options: AuthenticatorOptions) {
    this.#options = options
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    this.#key = privateKey
    this.#publicKey = publicKey
  }

  /** Makes its passkey for somebody. */
  create(
    options: PasskeyOptions,
    { verified = true, origin, attestation = { format: 'none' } }: CreateOptions = {},
  ): PasskeyAttestation {
    const { rp, user, challenge } = options as unknown as {
      rp: { id: string }
      user: { id: string }
      challenge: string
    }
    this.#userHandle = user.id
    const { x = '', y = '' } = this.#publicKey.export({ format: 'jwk' })
    // COSE (RFC 9053 §7.1): key type EC2, ES256, P-256, both coordinates.
    const cose = new Map<number, number | Uint8Array>([
      [1, 2],
      [3, -7],
      [-1, 1],
      [-2, new Uint8Array(Buffer.from(x, 'base64url'))],
      [-3, new Uint8Array(Buffer.from(y, 'base64url'))],
    ])
    const length = Buffer.alloc(2)
    length.writeUInt16BE(this.#id.length)
    const authData = Buffer.concat([
      this.#header(rp.id, HAS_CREDENTIAL | (verified ? VERIFIED : 0)),
      Buffer.alloc(16),
      length,
      this.#id,
      isoCBOR.encode(cose),
    ])
    const { format, x5c } = attestation
    const statement = new Map<string, Uint8Array[]>(x5c === undefined ? [] : [['x5c', [...x5c]]])
    const object = new Map<string, string | Uint8Array | Map<string, Uint8Array[]>>([
      ['fmt', format],
      ['attStmt', statement],
      ['authData', new Uint8Array(authData)],
    ])
    return {
      ...this.#names(),
      response: {
        clientDataJSON: this.#clientData('webauthn.create', challenge, origin).toString('base64url'),
        attestationObject: Buffer.from(isoCBOR.encode(object)).toString('base64url'),
      },
    }
  }

  /** Signs what it is asked to. */
  sign(options: PasskeyOptions, { verified = true, origin }: SignOptions = {}): PasskeyAssertion {
    const { rpId, challenge } = options as unknown as { rpId: string; challenge: string }
    if (this.#options.counts) this.counter += 1
    const authData = this.#header(rpId, verified ? VERIFIED : 0)
    const clientData = this.#clientData('webauthn.get', challenge, origin)
    const signed = Buffer.concat([authData, createHash('sha256').update(clientData).digest()])
    return {
      ...this.#names(),
      response: {
        clientDataJSON: clientData.toString('base64url'),
        authenticatorData: authData.toString('base64url'),
        signature: sign('sha256', signed, this.#key).toString('base64url'),
        userHandle: this.#userHandle,
      },
    }
  }

  #names() {
    const id = this.#id.toString('base64url')
    return { id, rawId: id, type: 'public-key', clientExtensionResults: {} } as const
  }

  #header(rpId: string, flags: number): Buffer {
    const counter = Buffer.alloc(4)
    counter.writeUInt32BE(this.counter)
    return Buffer.concat([createHash('sha256').update(rpId).digest(), Buffer.from([PRESENT | flags]), counter])
  }

  #clientData(type: string, challenge: string, origin = this.#options.origin): Buffer {
    return Buffer.from(JSON.stringify({ type, challenge, origin, crossOrigin: false }))
  }
}
