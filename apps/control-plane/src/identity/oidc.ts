import {
  authorizationCodeGrant,
  buildAuthorizationUrl,
  type Configuration,
  calculatePKCECodeChallenge,
  discovery,
  enableNonRepudiationChecks,
  fetchUserInfo,
} from 'openid-client'
import { z } from 'zod'
import { authenticateWith, failureFrom, loopbackRule, requireAnswer, TIMEOUT_SEC } from './client.js'
import { type Binding, type Identity, IdentityFailure, type IdentityProvider } from './provider.js'
import type { OidcConfig } from './settings.js'
import { nameFrom, verifiedEmail } from './verified-email.js'

/** Addresses of a provider change now and then. */
const DISCOVERED_FOR_MS = 3_600_000

const claimsSchema = z.object({
  sub: z.string().min(1).max(255),
  email: z.string().optional().catch(undefined),
  // Some providers write it as text.
  email_verified: z.union([z.boolean(), z.stringbool()]).optional().catch(undefined),
  name: z.string().optional().catch(undefined),
  preferred_username: z.string().optional().catch(undefined),
})

/** A provider of OpenID Connect (OpenID Connect Core 1.0, with PKCE), found by its issuer when it is first needed. */
export class OidcProvider implements IdentityProvider {
  readonly id: string
  readonly name: string
  readonly #config: OidcConfig
  #discovered: { readonly until: number; readonly client: Promise<Configuration> } | undefined

  constructor(config: OidcConfig) {
    this.id = config.id
    this.name = config.name
    this.#config = config
  }

  async authorizationUrl(redirectUri: string, { state, verifier, nonce }: Binding): Promise<URL> {
    return buildAuthorizationUrl(await this.#client(), {
      redirect_uri: redirectUri,
      scope: this.#config.scopes,
      state,
      nonce,
      code_challenge: await calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    })
  }

  async identify(answer: URL, { state, verifier, nonce }: Binding): Promise<Identity> {
    requireAnswer(answer)
    const client = await this.#client()
    try {
      const tokens = await authorizationCodeGrant(client, answer, {
        expectedState: state,
        expectedNonce: nonce,
        pkceCodeVerifier: verifier,
        idTokenExpected: true,
      })
      const idToken = tokens.claims()
      if (idToken === undefined) throw new IdentityFailure('exchange_failed', 'the provider sent no ID token')
      // Many leave all but the subject to the endpoint of user info (OpenID Connect Core 1.0 §5.4).
      const isEnough = idToken.email !== undefined && idToken.email_verified !== undefined
      const asks = !isEnough && client.serverMetadata().userinfo_endpoint !== undefined
      const more = asks ? await fetchUserInfo(client, tokens.access_token, idToken.sub) : {}
      const claims = claimsSchema.parse({ ...idToken, ...more })
      const { email, email_verified, name, preferred_username } = claims
      return {
        provider: this.id,
        issuer: client.serverMetadata().issuer,
        subject: claims.sub,
        verifiedEmail: email_verified === true ? verifiedEmail(email) : undefined,
        name: nameFrom(name, preferred_username),
      }
    } catch (error) {
      if (error instanceof z.ZodError) throw new IdentityFailure('exchange_failed', 'the claims have no usable subject')
      throw failureFrom(error, 'exchange_failed')
    }
  }

  /** One that did not answer is asked again the next time. */
  async #client(): Promise<Configuration> {
    if (this.#discovered === undefined || this.#discovered.until < performance.now()) {
      this.#discovered = { until: performance.now() + DISCOVERED_FOR_MS, client: this.#discover() }
    }
    const { client } = this.#discovered
    try {
      return await client
    } catch (error) {
      if (this.#discovered?.client === client) this.#discovered = undefined
      throw failureFrom(error, 'provider_unavailable')
    }
  }

  async #discover(): Promise<Configuration> {
    const { issuer, clientId, clientSecret } = this.#config
    // By TLS alone the answer could be believed; the signature holds beyond whatever lies between.
    const execute = [...loopbackRule(issuer), enableNonRepudiationChecks]
    const options = { execute, timeout: TIMEOUT_SEC }
    return await discovery(new URL(issuer), clientId, undefined, authenticateWith(clientSecret), options)
  }
}
