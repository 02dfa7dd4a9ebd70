import { randomBytes } from 'node:crypto'
import { type Logger, UndoStack } from '@wrenn/base'
import type { AuditPage, ConnectProvider, Me, NewUser } from '@wrenn/protocol'
import { freePort, type OidcServer, startOidcServer, startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { expect } from 'vitest'
import { type Db, openDatabase } from '../store/database.js'
import { type GithubPerson, TestGithub } from './github.js'
import { json, type Platform, startPlatform } from './harness.js'
import { newPlace, PASSWORD, type Tokens } from './people.js'
import { WebClient } from './web-client.js'

interface Visit {
  readonly client?: WebClient
  /** Where it comes from; each from a place of its own, unless one is given. */
  readonly place?: string
  readonly at?: Platform
}

/** Nobody else's. */
export const newName = (): string => `p${randomBytes(6).toString('hex')}`

/** An address of a person at GitHub. */
export const mail = (verified = true, primary = true, email = `${newName()}@example.org`) => ({
  email,
  primary,
  verified,
})

/** Headers of a request of a session. */
export const bearer = ({ token }: Tokens) => ({ authorization: `Bearer ${token}` })

/** The code that a page's address came with. */
export const codeIn = (page: URL): string => new URLSearchParams(page.hash.slice(1)).get('code') ?? 'none'

/** A page and the error that it is to tell. */
export const errorIn = (page: URL): string => `${page.pathname} ${page.searchParams.get('error')}`

/** Adds whatever is logged to `lines`. */
export function loggerInto(lines: string[]): Logger {
  const write = (fields: object, event: string): void => void lines.push(JSON.stringify([event, fields]))
  const logger: Logger = { debug: write, info: write, warn: write, error: write, child: () => logger }
  return logger
}

interface WorldOptions {
  readonly startPostgres?: () => Promise<TestPostgres>
  readonly env?: Readonly<Record<string, string>>
}

/** A platform, the providers that people can sign in to it with, and browsers that do. */
export class OauthWorld implements AsyncDisposable {
  /** Everything that the platform has logged. */
  readonly logged: string[] = []
  /** Where the platform's PostgreSQL is. */
  databaseServer = ''
  env: Readonly<Record<string, string>> = {}
  platform!: Platform
  db!: Db
  /** Shown as Acme Corp. */
  acme!: OidcServer
  /** With the id `other-one`. */
  other!: OidcServer
  github!: TestGithub
  #owned: AsyncDisposable | undefined

  /** @param env what the platform is told beside its providers */
  static async start({ startPostgres = startTestPostgres, env: more = {} }: WorldOptions = {}): Promise<OauthWorld> {
    const world = new OauthWorld()
    await using undo = new UndoStack()
    const own = async <T extends AsyncDisposable>(made: T): Promise<T> => {
      await undo.defer(() => made[Symbol.asyncDispose]())
      return made
    }
    const port = await freePort()
    const callback = (id: string) => `http://127.0.0.1:${port}/auth/oauth/${id}/callback`
    world.acme = await own(await startOidcServer({ redirectUris: [callback('acme')] }))
    world.other = await own(await startOidcServer({ redirectUris: [callback('other-one')] }))
    const github = await own(await TestGithub.start())
    world.github = github
    world.databaseServer = (await own(await startPostgres())).url
    world.env = {
      WRENN_PUBLIC_URL: `http://127.0.0.1:${port}/`,
      WRENN_TRUSTED_PROXIES: '127.0.0.1,::1',
      WRENN_SIGNUP: 'open',
      WRENN_ENCRYPTION_KEY: 'ab'.repeat(32),
      WRENN_OAUTH_GITHUB_CLIENT_ID: github.clientId,
      WRENN_OAUTH_GITHUB_CLIENT_SECRET: github.clientSecret,
      WRENN_OAUTH_GITHUB_URL: github.url,
      WRENN_OIDC_PROVIDERS: 'acme, other-one',
      WRENN_OIDC_ACME_NAME: 'Acme Corp',
      ...settingsOf('ACME', world.acme),
      ...settingsOf('OTHER_ONE', world.other),
      ...more,
    }
    const env = { ...world.env, WRENN_PORT: String(port) }
    world.platform = await own(
      await startPlatform({ databaseUrl: world.databaseServer, env, logger: loggerInto(world.logged) }),
    )
    world.db = openDatabase({ url: world.platform.databaseUrl })
    await undo.defer(() => world.db.destroy())
    // The first one is admin of the platform; no test is about them.
    await world.newPerson()
    world.#owned = undo.move()
    return world
  }

  async newPerson(email = `${newName()}@example.com`): Promise<Tokens> {
    const made = await json<NewUser>(await this.platform.call('POST', '/v1/admin/users', { email, name: 'P' }), 201)
    const activation = { token: made.activation_token, password: PASSWORD }
    return await json<Tokens>(await this.platform.call('POST', '/v1/auth/activate', activation), 200)
  }

  /** Somebody at Acme whose mail is verified, unless it is said otherwise. */
  atAcme(email_verified: boolean | string = true, email = `${newName()}@acme.example`) {
    const login = newName()
    this.acme.people.set(login, { email, email_verified, name: 'Grace' })
    return { login, email }
  }

  /** Somebody who is logged in at GitHub from now on; their number there. */
  atGithub(emails: GithubPerson['emails'], name: string | null = 'Octo'): number {
    const id = randomBytes(4).readUInt32BE()
    this.github.person = { id, login: `octo-${id}`, name, emails }
    return id
  }

  /** Where the platform sends a browser that wants to sign in. */
  async begin(path: string, { client = new WebClient(), place, at = this.platform }: Visit = {}): Promise<URL> {
    const headers = { 'x-forwarded-for': place ?? newPlace() }
    const response = await client.fetch(`${at.url}/auth/oauth/${path}`, { headers })
    await response.arrayBuffer()
    expect(response.status).toBe(302)
    return new URL(response.headers.get('location') ?? '')
  }

  /** Logs in at Acme and consents, on its pages. Gives where it sends the browser back to. */
  async throughPages(start: URL, login: string, client: WebClient): Promise<URL> {
    const { issuer } = this.acme
    let { url, page } = await client.follow(start, issuer)
    while (page !== undefined) {
      const prompt = /name="prompt" value="(\w+)"/.exec(page)?.[1]
      if (prompt === undefined) throw new Error(`no form: ${url.href} ${page.slice(0, 2000)}`)
      const body = new URLSearchParams(prompt === 'login' ? { prompt, login, password: 'any' } : { prompt })
      const response = await client.fetch(url, { method: 'POST', body })
      await response.arrayBuffer()
      ;({ url, page } = await client.follow(new URL(response.headers.get('location') ?? '', url), issuer))
    }
    return url
  }

  /** The page that a callback leads to. */
  async comeBack(callback: URL, client: WebClient): Promise<URL> {
    const response = await client.fetch(callback, { headers: { 'x-forwarded-for': newPlace() } })
    expect([response.status, await response.text()]).toEqual([302, ''])
    return new URL(response.headers.get('location') ?? '')
  }

  /** The page that a sign-in at Acme leads to. */
  async viaAcme(path: string, login: string, client = new WebClient()): Promise<URL> {
    return await this.comeBack(await this.throughPages(await this.begin(path, { client }), login, client), client)
  }

  /** The page that a sign-in at GitHub leads to. */
  async viaGithub(path: string, { client = new WebClient(), ...visit }: Visit = {}): Promise<URL> {
    const { url } = await client.follow(await this.begin(path, { ...visit, client }), this.github.url)
    return await this.comeBack(url, client)
  }

  /** What the page does with its code. */
  exchange(page: URL, client: WebClient, { body = {}, headers = {} }: { body?: object; headers?: object } = {}) {
    return client.fetch(`${page.origin}/v1/auth/oauth/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', origin: page.origin, 'x-forwarded-for': newPlace(), ...headers },
      body: JSON.stringify({ code: codeIn(page), ...body }),
    })
  }

  /** Signs in or up at Acme, to the end. */
  async signIn(path: string, login: string): Promise<Tokens> {
    const client = new WebClient()
    return await json<Tokens>(await this.exchange(await this.viaAcme(path, login, client), client), 200)
  }

  async meOf(tokens: Tokens): Promise<Me> {
    return await json<Me>(await fetch(`${this.platform.url}/v1/me`, { headers: bearer(tokens) }), 200)
  }

  /** Where the platform sends a browser that wants to connect its person's account. */
  async connect(person: Tokens, client: WebClient, provider = 'acme'): Promise<URL> {
    const response = await client.fetch(`${this.platform.url}/v1/me/providers/${provider}/connect`, {
      method: 'POST',
      headers: { ...bearer(person), 'x-forwarded-for': newPlace() },
    })
    return new URL((await json<ConnectProvider>(response, 200)).auth_url)
  }

  /** Connects an account with somebody at Acme; the page that it leads to. */
  async link(person: Tokens, login: string): Promise<URL> {
    const client = new WebClient()
    return await this.comeBack(await this.throughPages(await this.connect(person, client), login, client), client)
  }

  disconnect(person: Tokens, provider: string): Promise<Response> {
    const headers = bearer(person)
    return fetch(`${this.platform.url}/v1/me/providers/${provider}`, { method: 'DELETE', headers })
  }

  /** As its owner, who has just proved who they are. */
  async deleteAccount(person: Tokens): Promise<void> {
    const headers = { ...bearer(person), 'content-type': 'application/json' }
    const body = JSON.stringify({ confirmation: person.email })
    await json(await fetch(`${this.platform.url}/v1/me`, { method: 'DELETE', headers, body }), 202)
  }

  /** Of the trail of somebody's team, or of nobody's. */
  async entriesOf(action: string, person?: Tokens): Promise<AuditPage['items']> {
    const path = person === undefined ? '/v1/admin/audit-logs' : '/v1/audit-logs'
    const headers = person === undefined ? { 'x-api-key': this.platform.key } : bearer(person)
    const response = await fetch(`${this.platform.url}${path}?action=${action}&limit=200`, { headers })
    return (await json<AuditPage>(response, 200)).items
  }

  /** The cookie that a browser keeps while it signs in. */
  async cookieOf(client: WebClient): Promise<string> {
    const headers = { 'x-forwarded-for': newPlace() }
    const response = await client.fetch(`${this.platform.url}/auth/oauth/acme`, { headers })
    await response.arrayBuffer()
    return response.headers.getSetCookie()[0]?.split(';')[0] ?? ''
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned?.[Symbol.asyncDispose]()
  }
}

function settingsOf(name: string, { issuer, clientId, clientSecret }: OidcServer): Record<string, string> {
  return {
    [`WRENN_OIDC_${name}_ISSUER`]: issuer,
    [`WRENN_OIDC_${name}_CLIENT_ID`]: clientId,
    [`WRENN_OIDC_${name}_CLIENT_SECRET`]: clientSecret,
  }
}
