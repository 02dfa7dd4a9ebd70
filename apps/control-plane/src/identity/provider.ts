/** Somebody, as a provider knows them. */
export interface Identity {
  /** Id of the provider in the settings. */
  readonly provider: string
  readonly issuer: string
  /** Never another person's at this issuer. */
  readonly subject: string
  /** `undefined`: the provider does not say that it is theirs. */
  readonly verifiedEmail: string | undefined
  /** For people; may be empty. */
  readonly name: string
}

/** What binds a provider's answer to the question; new for each sign-in. */
export interface Binding {
  readonly state: string
  /** Of PKCE (RFC 7636). */
  readonly verifier: string
  readonly nonce: string
}

/** Somebody else's service that tells who people are. */
export interface IdentityProvider {
  readonly id: string
  /** For people. */
  readonly name: string
  /** Where a browser goes to be asked. @throws IdentityFailure `provider_unavailable` */
  authorizationUrl(redirectUri: string, binding: Binding): Promise<URL>
  /** Who it is. @param answer the redirect URI with what the provider has added to it @throws IdentityFailure */
  identify(answer: URL, binding: Binding): Promise<Identity>
}

/** Why a provider told nobody's identity, in the words of `oauthErrors`. */
export type FailureReason = 'access_denied' | 'missing_code' | 'exchange_failed' | 'provider_unavailable'

/** No identity came of it. The message is for the log; it has nothing of what a provider sent but error codes. */
export class IdentityFailure extends Error {
  readonly reason: FailureReason

  constructor(reason: FailureReason, message: string) {
    super(message)
    this.name = 'IdentityFailure'
    this.reason = reason
  }
}
