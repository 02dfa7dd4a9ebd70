import {
  authorizationCodeGrant,
  buildAuthorizationUrl,
  Configuration,
  calculatePKCECodeChallenge,
  fetchProtectedResource,
} from 'openid-client'
import { z } from 'zod'
import { authenticateWith, failureFrom, loopbackRule, requireAnswer, TIMEOUT_SEC } from './client.js'
import { type Binding, type Identity, IdentityFailure, type IdentityProvider } from './provider.js'
import type { GithubConfig } from './settings.js'
import { nameFrom, verifiedEmail } from './verified-email.js'

/** What addresses somebody has, private ones too. */
const SCOPE = 'user:email'

const userSchema = z.object({ id: z.number().int(), login: z.string(), name: z.string().nullish() })
const emailsSchema = z.array(z.object({ email: z.string(), primary: z.boolean(), verified: z.boolean() }))

/** GitHub, which speaks OAuth 2 without ID tokens: who it is, its API says. */
export class GithubProvider implements IdentityProvider {
  readonly id: string
  readonly name: string
  readonly #config: GithubConfig
  readonly #client: Configuration

  constructor(config: GithubConfig) {
    this.id = config.id
    this.name = config.name
    this.#config = config
    const server = {
      // GitHub names itself so in its answers (RFC 9207).
      issuer: `${config.url}/login/oauth`,
      authorization_endpoint: `${config.url}/login/oauth/authorize`,
      token_endpoint: `${config.url}/login/oauth/access_token`,
      token_endpoint_auth_methods_supported: ['client_secret_post'],
    }
    this.#client = new Configuration(server, config.clientId, undefined, authenticateWith(config.clientSecret))
    this.#client.timeout = TIMEOUT_SEC
    for (const allow of loopbackRule(config.url)) allow(this.#client)
  }

  async authorizationUrl(redirectUri: string, { state, verifier }: Binding): Promise<URL> {
    return buildAuthorizationUrl(this.#client, {
      redirect_uri: redirectUri,
      scope: SCOPE,
      state,
      code_challenge: await calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    })
  }

  async identify(answer: URL, { state, verifier }: Binding): Promise<Identity> {
    requireAnswer(answer)
    try {
      const { access_token: token } = await authorizationCodeGrant(this.#client, answer, {
        expectedState: state,
        pkceCodeVerifier: verifier,
      })
      const [user, emails] = await Promise.all([this.#user(token), this.#emails(token)])
      const primary = emails.find(({ primary, verified }) => primary && verified)
      return {
        provider: this.id,
        issuer: this.#client.serverMetadata().issuer,
        // A login can be given up and taken by somebody else.
        subject: String(user.id),
        verifiedEmail: verifiedEmail(primary?.email),
        name: nameFrom(user.name, user.login),
      }
    } catch (error) {
      throw failureFrom(error, 'exchange_failed')
    }
  }

  async #user(token: string): Promise<z.infer<typeof userSchema>> {
    return await read('/user', userSchema, await this.#get(token, '/user'))
  }

  /** None where the registration may not ask for them. */
  async #emails(token: string): Promise<z.infer<typeof emailsSchema>> {
    const path = '/user/emails'
    const response = await this.#get(token, `${path}?per_page=100`)
    if (![403, 404].includes(response.status)) return await read(path, emailsSchema, response)
    await response.body?.cancel()
    return []
  }

  async #get(token: string, path: string): Promise<Response> {
    const headers = new Headers({ accept: 'application/vnd.github+json', 'user-agent': 'wrenn' })
    const url = new URL(`${this.#config.apiUrl}${path}`)
    return await fetchProtectedResource(this.#client, token, url, 'GET', undefined, headers)
  }
}

/** @throws IdentityFailure */
async function read<T>(path: string, schema: z.ZodType<T>, response: Response): Promise<T> {
  if (!response.ok) {
    await response.body?.cancel()
    const reason = response.status >= 500 ? 'provider_unavailable' : 'exchange_failed'
    throw new IdentityFailure(reason, `${path} answered ${response.status}`)
  }
  const parsed = schema.safeParse(await response.json().catch(() => undefined))
  if (parsed.success) return parsed.data
  throw new IdentityFailure('exchange_failed', `${path} answered what is not of its form`)
}
