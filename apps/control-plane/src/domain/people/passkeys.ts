import {
  type AuthenticationResponseJSON,
  type AuthenticatorTransportFuture,
  generateAuthenticationOptions,
  generateRegistrationOptions,
  type PublicKeyCredentialCreationOptionsJSON,
  type PublicKeyCredentialRequestOptionsJSON,
  type RegistrationResponseJSON,
  verifyAuthenticationResponse,
  verifyRegistrationResponse,
} from '@simplewebauthn/server'
import { decodeAttestationObject } from '@simplewebauthn/server/helpers'
import { AppError } from '@wrenn/base'
import type { PasskeyAssertion, PasskeyAttestation } from '@wrenn/protocol'
import type { Db } from '../../store/database.js'
import { findPasskey, lockPasskey, usePasskey } from '../../store/factors.js'
import { addChallenge, type Challenge, takeChallenge } from '../../store/login-steps.js'
import type { PasskeyRow } from '../../store/schema.js'
import type { UserPrincipal } from '../accounts/index.js'
import { digestOf } from './tokens.js'

const CHALLENGE_SEC = 5 * 60
const NAME = 'Wrenn'

/** What a passkey is asked for, and by which session or login; `undefined` where there is none yet. */
export interface Ceremony {
  readonly purpose: Challenge['purpose']
  readonly boundTo?: string
}

/** A passkey that has signed what it was asked for. */
export interface Signed {
  readonly id: string
  readonly userId: string
  readonly counter: number
  readonly backedUp: boolean
}

/** A passkey that was just made. */
export interface MadePasskey {
  readonly credentialId: string
  readonly publicKey: string
  readonly counter: number
  readonly transports: readonly string[]
  readonly backedUp: boolean
}

interface PasskeysDeps {
  readonly db: Db
  /** Where people reach the platform: passkeys are made for its host, and sign for its pages alone. */
  readonly publicUrl: string
}

/** What browsers and authenticators say to each other and to us (WebAuthn Level 3), by `@simplewebauthn/server`. */
export class Passkeys {
  readonly #db: Db
  readonly #party: { readonly id: string; readonly origin: string } | undefined

  constructor({ db, publicUrl }: PasskeysDeps) {
    this.#db = db
    this.#party = partyOf(publicUrl)
  }

  /** Whether people reach the platform by a name that passkeys can be of. */
  get areUsable(): boolean {
    return this.#party !== undefined
  }

  /** What a new one is made with. @throws AppError `not_supported` */
  async creationOptions(
    { id, email, name, sessionId }: UserPrincipal,
    known: readonly PasskeyRow[],
  ): Promise<PublicKeyCredentialCreationOptionsJSON> {
    const options = await generateRegistrationOptions({
      rpName: NAME,
      rpID: this.#needParty().id,
      userID: new TextEncoder().encode(id),
      userName: email,
      userDisplayName: name,
      attestationType: 'none',
      excludeCredentials: known.map(toDescriptor),
      // A key that keeps none, or has no PIN, is good as a second factor all the same.
      authenticatorSelection: { residentKey: 'preferred', userVerification: 'preferred' },
    })
    await this.#expect(options.challenge, { purpose: 'register', boundTo: sessionId })
    return options
  }

  /** @throws AppError `invalid_request`, `not_supported` */
  async verifyNew(attestation: PasskeyAttestation, { sessionId }: UserPrincipal): Promise<MadePasskey> {
    const { id: expectedRPID, origin: expectedOrigin } = this.#needParty()
    const wrong = `credential: was not made here, for ${expectedOrigin}, just now`
    if (!isUnattested(attestation.response.attestationObject)) throw new AppError('invalid_request', wrong)
    const verified = await this.#checked({ purpose: 'register', boundTo: sessionId }, (expectedChallenge) =>
      verifyRegistrationResponse({
        // It is checked field by field there.
        response: attestation as unknown as RegistrationResponseJSON,
        expectedChallenge,
        expectedOrigin,
        expectedRPID,
        requireUserVerification: false,
      }),
    )
    if (verified?.verified !== true) {
      throw new AppError('invalid_request', wrong)
    }
    const { credential, credentialBackedUp: backedUp } = verified.registrationInfo
    return {
      credentialId: credential.id,
      publicKey: Buffer.from(credential.publicKey).toString('base64url'),
      counter: credential.counter,
      transports: credential.transports ?? [],
      backedUp,
    }
  }

  /** What one is asked to sign. @param known `undefined`: whichever its owner chooses @throws AppError `not_supported` */
  async requestOptions(
    ceremony: Ceremony,
    known?: readonly PasskeyRow[],
  ): Promise<PublicKeyCredentialRequestOptionsJSON> {
    const options = await generateAuthenticationOptions({
      rpID: this.#needParty().id,
      userVerification: ceremony.purpose === 'second-factor' ? 'preferred' : 'required',
      ...(known === undefined ? {} : { allowCredentials: known.map(toDescriptor) }),
    })
    await this.#expect(options.challenge, ceremony)
    return options
  }

  /**
   * `undefined` unless it has signed what it was asked for, and, where it is no second factor, has made sure that its owner is there.
   * @throws AppError `not_supported`
   */
  async verify(assertion: PasskeyAssertion, ceremony: Ceremony): Promise<Signed | undefined> {
    const { id: expectedRPID, origin: expectedOrigin } = this.#needParty()
    const passkey = await findPasskey(this.#db, assertion.id)
    if (passkey === undefined) return undefined
    const verified = await this.#checked(ceremony, (expectedChallenge) =>
      verifyAuthenticationResponse({
        response: assertion as unknown as AuthenticationResponseJSON, // As above.
        expectedChallenge,
        expectedOrigin,
        expectedRPID,
        requireUserVerification: ceremony.purpose !== 'second-factor',
        credential: {
          id: passkey.credential_id,
          publicKey: Buffer.from(passkey.public_key, 'base64url'),
          counter: passkey.counter,
        },
      }),
    )
    if (verified?.verified !== true || !isOf(assertion, passkey)) return undefined
    const { newCounter: counter, credentialBackedUp: backedUp } = verified.authenticationInfo
    return { id: passkey.id, userId: passkey.user_id, counter, backedUp }
  }

  /** @returns false when it is gone, or its counter has moved on: then it was copied, or has signed twice at once */
  async record(tx: Db, { id, counter, backedUp }: Signed): Promise<boolean> {
    const passkey = await lockPasskey(tx, id)
    if (passkey === undefined) return false
    if (counter <= passkey.counter && (counter > 0 || passkey.counter > 0)) return false
    await usePasskey(tx, id, counter, backedUp)
    return true
  }

  /** The library says by throwing that an answer is none; a database that fails meanwhile is another matter. */
  async #checked<Result>(
    ceremony: Ceremony,
    check: (expectedChallenge: (challenge: string) => Promise<boolean>) => Promise<Result>,
  ): Promise<Result | undefined> {
    let failure: unknown
    const result = await check(async (challenge) => {
      try {
        // The client's JSON may have anything there.
        return typeof challenge === 'string' && (await this.#take(challenge, ceremony))
      } catch (error) {
        failure = error
        throw error
      }
    }).catch(() => undefined)
    if (failure !== undefined) throw failure
    return result
  }

  async #expect(challenge: string, { purpose, boundTo = '' }: Ceremony): Promise<void> {
    await addChallenge(this.#db, { digest: digestOf(challenge), purpose, boundTo }, CHALLENGE_SEC)
  }

  async #take(challenge: string, { purpose, boundTo = '' }: Ceremony): Promise<boolean> {
    return await takeChallenge(this.#db, { digest: digestOf(challenge), purpose, boundTo })
  }

  #needParty(): { readonly id: string; readonly origin: string } {
    if (this.#party !== undefined) return this.#party
    throw new AppError('not_supported', 'Passkeys need a host name: set WRENN_PUBLIC_URL to one, not to an address.')
  }
}

/** Browsers make passkeys for names, not for addresses; this machine has a name. */
function partyOf(publicUrl: string): { readonly id: string; readonly origin: string } | undefined {
  const url = new URL(publicUrl)
  if (/^(?:127\.[\d.]+|\[::1\])$/.test(url.hostname)) url.hostname = 'localhost'
  if (/^(?:[\d.]+|\[.*\])$/.test(url.hostname)) return undefined
  return { id: url.hostname, origin: url.origin }
}

function toDescriptor({ credential_id: id, transports }: PasskeyRow) {
  return { id, transports: transports as AuthenticatorTransportFuture[] } // An authenticator's own words, told back to it.
}

/** Who signs without saying a name first says it by this. */
function isOf({ response: { userHandle } }: PasskeyAssertion, { user_id }: PasskeyRow): boolean {
  return userHandle === undefined || userHandle === null || Buffer.from(userHandle, 'base64url').toString() === user_id
}

/**
 * Whether it says nothing of its maker's certificates, as it was asked to (attestation `none`): to check a chain, the library fetches lists of
 * revoked certificates from wherever these say.
 */
function isUnattested(attestationObject: string): boolean {
  try {
    const decoded = decodeAttestationObject(new Uint8Array(Buffer.from(attestationObject, 'base64url')))
    const format = decoded.get('fmt')
    return format === 'none' || (format === 'packed' && decoded.get('attStmt').get('x5c') === undefined)
  } catch {
    return false
  }
}
