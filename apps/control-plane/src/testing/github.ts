import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'

/** Who is logged in at the server. */
export interface GithubPerson {
  readonly id: number
  readonly login: string
  readonly name: string | null
  readonly emails: readonly { readonly email: string; readonly primary: boolean; readonly verified: boolean }[]
}

/** A server that answers as GitHub does where people sign in with it, and lets whoever asks in without a question. */
export class TestGithub implements AsyncDisposable {
  readonly clientId = 'Iv1.wrenn'
  readonly clientSecret = 'not a secret'
  person: GithubPerson | undefined
  /** What it sends back instead of a code. */
  error: string | undefined
  /** Status of its API for addresses. */
  emailsStatus = 200
  readonly #codes = new Map<string, { readonly challenge: string; readonly person: GithubPerson }>()
  readonly #tokens = new Map<string, GithubPerson>()
  readonly #server: Server

  private constructor() {
    this.#server = createServer((request, response) => void this.#serve(request, response))
  }

  static async start(): Promise<TestGithub> {
    const github = new TestGithub()
    github.#server.listen(0, '127.0.0.1')
    await once(github.#server, 'listening')
    return github
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}` // it listens on a port
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '', this.url)
    if (url.pathname === '/login/oauth/authorize') return this.#authorize(url, response)
    if (url.pathname === '/login/oauth/access_token') return this.#token(request, await text(request), response)
    const person = this.#tokens.get((request.headers.authorization ?? '').replace(/^bearer /i, ''))
    if (person === undefined || request.headers['user-agent'] === undefined) return answer(response, 401, {})
    const { emails, ...user } = person
    // An address that is private is not here.
    if (url.pathname === '/api/v3/user') return answer(response, 200, { ...user, email: null })
    if (url.pathname === '/api/v3/user/emails') return answer(response, this.emailsStatus, emails)
    answer(response, 404, {})
  }

  #authorize({ searchParams: query }: URL, response: ServerResponse): void {
    const back = new URL(query.get('redirect_uri') ?? '')
    const code = randomBytes(10).toString('hex')
    if (this.error === undefined && this.person !== undefined) {
      this.#codes.set(code, { challenge: query.get('code_challenge') ?? '', person: this.person })
      back.searchParams.set('code', code)
    } else back.searchParams.set('error', this.error ?? 'access_denied')
    back.searchParams.set('iss', `${this.url}/login/oauth`)
    back.searchParams.set('state', query.get('state') ?? '')
    response.writeHead(302, { location: back.href }).end()
  }

  /** Errors have the status 200, and who does not ask for JSON gets a form. */
  #token({ headers }: IncomingMessage, body: string, response: ServerResponse): void {
    if (headers.accept === 'application/json') answer(response, 200, this.#exchange(new URLSearchParams(body)))
    else response.writeHead(200).end('access_token=none')
  }

  #exchange(form: URLSearchParams): object {
    const code = form.get('code') ?? ''
    const found = this.#codes.get(code)
    this.#codes.delete(code)
    if (form.get('client_secret') !== this.clientSecret) return { error: 'incorrect_client_credentials' }
    const challenge = createHash('sha256')
      .update(form.get('code_verifier') ?? '')
      .digest('base64url')
    if (found?.challenge !== challenge) return { error: 'bad_verification_code', error_description: '', error_uri: '' }
    const token = `gho_${randomBytes(18).toString('hex')}`
    this.#tokens.set(token, found.person)
    return { access_token: token, token_type: 'bearer', scope: 'user:email' }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(body))
}
