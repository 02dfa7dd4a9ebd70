import { createHmac } from 'node:crypto'
import { AppError, errorText, type Logger } from '@wrenn/base'
import type { OauthError, Provider } from '@wrenn/protocol'
import type { SignUpRule } from '../../config.js'
import { type Binding, type Identity, IdentityFailure, type IdentityProvider } from '../../identity/index.js'
import type { Db } from '../../store/database.js'
import {
  addOauthCode,
  addOauthFlow,
  findCodeHolder,
  type OauthFlowRow,
  takeOauthCode,
  takeOauthFlow,
} from '../../store/oauth-flows.js'
import type { UserRow } from '../../store/schema.js'
import { lockUser } from '../../store/users.js'
import type { UserPrincipal } from '../accounts/index.js'
import type { Confirmations } from './confirmations.js'
import type { From } from './from.js'
import type { LoginEnd, LoginResult, LoginWish } from './login-end.js'
import type { LoginMethods } from './login-methods.js'
import { accountOf, link, OauthRefusal, signUpWith, unlink, writeFailure } from './oauth-identities.js'
import type { PeopleMailer } from './people-mail.js'
import { placeOf, type Throttle } from './throttle.js'
import { digestOf, newCode, newSecret } from './tokens.js'

const FLOW_SEC = 10 * 60
const CODE_SEC = 60

interface OauthLoginsDeps {
  readonly db: Db
  readonly providers: readonly IdentityProvider[]
  readonly confirmations: Pick<Confirmations, 'require'>
  readonly loginEnd: LoginEnd
  readonly loginMethods: LoginMethods
  readonly mailer: PeopleMailer
  readonly throttle: Throttle
  readonly signUp: SignUpRule
  /** Where people are, without a slash at its end. */
  readonly publicUrl: string
  readonly logger: Logger
}

/** What somebody wants of a provider. */
export type OauthWish =
  | { readonly intent: 'login' | 'signup'; readonly next: string | undefined }
  | { readonly intent: 'link'; readonly principal: UserPrincipal }

/** What became of a sign-in when its provider has sent the browser back. */
export interface OauthOutcome {
  /** `undefined` where nobody knows, because no such sign-in was begun in this browser. */
  readonly intent: OauthFlowRow['intent'] | undefined
  readonly next: string | undefined
  /** For {@link OauthLogins.open}, or why there is none; a link needs none. */
  readonly result: { readonly code: string } | { readonly error: OauthError } | 'linked'
}

/**
 * Lets people in by a provider's word, or connects their accounts with it. What a browser keeps (a random secret) binds a sign-in to it from the
 * first step to the last; what the provider's answer is checked with is derived from that, so nothing that is stored is worth reading.
 */
export class OauthLogins {
  readonly #deps: OauthLoginsDeps
  readonly #providers: ReadonlyMap<string, IdentityProvider>

  constructor(deps: OauthLoginsDeps) {
    this.#deps = deps
    this.#providers = new Map(deps.providers.map((provider) => [provider.id, provider]))
  }

  /** Where people are, without a slash at its end: providers send them back there. */
  get publicUrl(): string {
    return this.#deps.publicUrl
  }

  /** Those that people can sign in with. */
  list(): Provider[] {
    const { providers, publicUrl } = this.#deps
    return providers.map(({ id, name }) => ({ id, name, login_url: `${publicUrl}/auth/oauth/${id}` }))
  }

  /** @throws AppError `provider_not_found` */
  require(id: string): IdentityProvider {
    const provider = this.#providers.get(id)
    if (provider !== undefined) return provider
    throw new AppError('provider_not_found', `Nobody can sign in with ${id} here.`)
  }

  /**
   * Where the browser goes to be asked.
   * @param browser what it keeps
   * @throws AppError `provider_not_found`, `provider_unavailable`, `limit_exceeded`; `confirmation_needed` to connect an account
   */
  async begin(providerId: string, wish: OauthWish, browser: string, from: From): Promise<URL> {
    const { db, confirmations, throttle } = this.#deps
    const provider = this.require(providerId)
    if (wish.intent === 'link') await confirmations.require(db, wish.principal)
    await throttle.count('oauthPlace', placeOf(from.ip))
    const state = newSecret()
    const url = await this.#ask(provider, bindingOf(state, browser))
    await addOauthFlow(db, {
      digest: digestOf(state),
      browser: digestOf(browser),
      provider: providerId,
      intent: wish.intent,
      next: wish.intent === 'link' ? null : (wish.next ?? null),
      session_id: wish.intent === 'link' ? wish.principal.sessionId : null,
      lifeSec: FLOW_SEC,
    })
    return url
  }

  async #ask(provider: IdentityProvider, binding: Binding): Promise<URL> {
    try {
      return await provider.authorizationUrl(this.#redirectUri(provider.id), binding)
    } catch (error) {
      if (!(error instanceof IdentityFailure)) throw error
      this.#deps.logger.warn({ provider: provider.id, error: error.message }, 'oauth.provider_failed')
      throw new AppError('provider_unavailable', `${provider.name} does not answer as it should.`)
    }
  }

  /**
   * What becomes of a sign-in that its provider has sent back. Every answer is taken once, whatever it says.
   * @param query of the callback's address
   * @param browser what it keeps, if it keeps something
   * @throws AppError `provider_not_found`
   */
  async answer(providerId: string, query: string, browser: string | undefined, from: From): Promise<OauthOutcome> {
    const provider = this.require(providerId)
    const state = new URLSearchParams(query).get('state')
    if (state === null || browser === undefined) return nothingBegun
    const flow = await takeOauthFlow(this.#deps.db, digestOf(state), digestOf(browser))
    if (flow === undefined) return nothingBegun
    const told = { intent: flow.intent, next: flow.next ?? undefined }
    // One provider's answer at another's door.
    if (flow.provider !== providerId) return { ...told, result: { error: 'invalid_state' } }
    const answer = new URL(`${this.#redirectUri(providerId)}?${query}`)
    let identity: Identity | undefined
    try {
      identity = await this.#identify(provider, answer, bindingOf(state, browser), from)
      return { ...told, result: await this.#settle(flow, identity, browser, from) }
    } catch (error) {
      return { ...told, result: { error: await this.#refused(error, flow, identity, from) } }
    }
  }

  /** As a login by password is counted. */
  async #identify(provider: IdentityProvider, answer: URL, binding: Binding, from: From): Promise<Identity> {
    const { throttle } = this.#deps
    const place = placeOf(from.ip)
    await throttle.count('loginPlace', place)
    const identity = await provider.identify(answer, binding)
    await throttle.uncount('loginPlace', place)
    return identity
  }

  /** Tells the log and the audit trail what failed. @returns what the page is told */
  async #refused(
    error: unknown,
    { provider, intent }: OauthFlowRow,
    identity: Identity | undefined,
    from: From,
  ): Promise<OauthError> {
    const { db, logger } = this.#deps
    const refusal = refusalOf(error)
    if (refusal === undefined || error instanceof IdentityFailure) {
      logger.warn({ provider, error: errorText(error), requestId: from.requestId }, 'oauth.failed')
    }
    if (refusal === undefined) return 'internal_error'
    // Who says no at the provider has tried nothing here.
    if (!['access_denied', 'limit_exceeded'].includes(refusal.code)) {
      await writeFailure(db, refusal, { provider, isLink: intent === 'link', email: identity?.verifiedEmail }, from)
    }
    return refusal.code
  }

  async #settle(
    flow: OauthFlowRow,
    identity: Identity,
    browser: string,
    from: From,
  ): Promise<{ readonly code: string } | 'linked'> {
    const { db, signUp } = this.#deps
    return await db.transaction().execute(async (tx) => {
      if (flow.intent === 'link') {
        const user = await link(tx, identity, flow.session_id ?? '', from)
        if (user !== undefined)
          await this.#tell(tx, user, `your account was connected with ${this.#nameOf(flow.provider)}`)
        return 'linked'
      }
      if (flow.intent === 'signup') await signUpWith(tx, identity, signUp, from)
      else await accountOf(tx, identity)
      const code = newCode()
      const { provider, issuer, subject } = identity
      await addOauthCode(tx, {
        digest: digestOf(code),
        browser: digestOf(browser),
        ...{ provider, issuer, subject },
        lifeSec: CODE_SEC,
      })
      return { code }
    })
  }

  /**
   * The session of a sign-in that succeeded: where every one of them ends.
   * @param browser what it keeps
   * @throws AppError `login_expired`, `account_disabled`, `limit_exceeded`, and `deletion_pending`, after which the code is still good
   */
  async open(
    code: string,
    browser: string | undefined,
    from: From,
    { restore }: Pick<LoginWish, 'restore'> = {},
  ): Promise<LoginResult> {
    const { db, loginEnd, throttle } = this.#deps
    const place = placeOf(from.ip)
    await throttle.count('tokenPlace', place)
    const digest = digestOf(code)
    const opened = await db.transaction().execute(async (tx) => {
      const holder = await findCodeHolder(tx, digest)
      // What ends their sessions from here on ends this one too.
      const user = holder === undefined ? undefined : await lockUser(tx, holder)
      const provider = browser === undefined ? undefined : await takeOauthCode(tx, digest, digestOf(browser))
      if (provider === undefined || user === undefined) {
        throw new AppError('login_expired', 'This sign-in was used, took too long, or was made in another browser.')
      }
      return await loginEnd.finish(tx, user, from, { restore, provider })
    })
    await throttle.uncount('tokenPlace', place)
    return opened
  }

  /** Disconnects one's own account. @throws AppError `provider_not_found`, `last_login_method` */
  async disconnect(principal: UserPrincipal, providerId: string, from: From): Promise<void> {
    const { db, loginMethods } = this.#deps
    await db.transaction().execute(async (tx) => {
      const requireOne = (_: Db, user: UserRow) => loginMethods.requireOne(tx, user)
      const user = await unlink(tx, principal, providerId, requireOne, from)
      await this.#tell(tx, user, `your account was disconnected from ${this.#nameOf(providerId)}`)
    })
  }

  async #tell(tx: Db, { email: to, name }: UserRow, what: string): Promise<void> {
    await this.#deps.mailer.send(tx, { kind: 'sign-in-changed', to, name, what, at: new Date().toISOString() })
  }

  /** One that is not set any more has none but its id. */
  #nameOf(providerId: string): string {
    return this.#providers.get(providerId)?.name ?? providerId
  }

  #redirectUri(providerId: string): string {
    return `${this.#deps.publicUrl}/auth/oauth/${providerId}/callback`
  }
}

const nothingBegun: OauthOutcome = { intent: undefined, next: undefined, result: { error: 'invalid_state' } }

/** The same each time for the same sign-in; nobody can tell it without what the browser keeps. */
function bindingOf(state: string, browser: string): Binding {
  const derive = (what: string): string => createHmac('sha256', browser).update(`${what}.${state}`).digest('base64url')
  return { state, verifier: derive('verifier'), nonce: derive('nonce') }
}

function refusalOf(error: unknown): OauthRefusal | undefined {
  if (error instanceof OauthRefusal) return error
  if (error instanceof IdentityFailure) return new OauthRefusal(error.reason)
  return AppError.is(error, 'limit_exceeded') ? new OauthRefusal('limit_exceeded') : undefined
}
