import { randomBytes } from 'node:crypto'
import type { Auth, ErrorBody, NewUser } from '@wrenn/protocol'
import { json, type Platform } from './harness.js'

/** Of everybody that tests make. */
export const PASSWORD = 'correct horse battery'

/** A session outside of a browser. */
export interface Tokens extends Auth {
  readonly token: string
  readonly refresh_token: string
}

interface Call {
  readonly method?: string
  readonly body?: object
  readonly token?: string | undefined
  readonly headers?: Readonly<Record<string, string>>
  readonly place?: string
  readonly url?: string
}

/** People who use a platform that trusts proxies on this machine. */
export class People {
  readonly #platform: Platform

  constructor(platform: Platform) {
    this.#platform = platform
  }

  /** From a place of its own, unless one is given: so no test locks out another. */
  call(path: string, { method, body, token, headers = {}, place = newPlace(), url }: Call = {}): Promise<Response> {
    return fetch((url ?? this.#platform.url) + path, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers: {
        'x-forwarded-for': place,
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  }

  /** An active account with a session. */
  async add(name = 'Somebody'): Promise<Tokens> {
    const made = await this.#platform.call('POST', '/v1/admin/users', { email: newEmail(), name })
    const { activation_token: token } = await json<NewUser>(made, 201)
    return await json<Tokens>(await this.call('/v1/auth/activate', { body: { token, password: PASSWORD } }), 200)
  }

  login(email: string, more: object = {}, url?: string): Promise<Response> {
    const body = { email, password: PASSWORD, ...more }
    return this.call('/v1/auth/login', url === undefined ? { body } : { body, url })
  }

  /** What a token is answered with by `/v1/me`. */
  async statusOf(token: string, url?: string): Promise<number> {
    const response = await this.call('/v1/me', url === undefined ? { token } : { token, url })
    await response.arrayBuffer()
    return response.status
  }
}

export const newEmail = (): string => `p${randomBytes(6).toString('hex')}@example.com`
export const newPlace = (): string => [...randomBytes(3)].reduce((ip, byte) => `${ip}.${byte}`, '10')

/** Status and code of a refusal. */
export async function refusal(response: Response): Promise<string> {
  return `${response.status} ${(await json<ErrorBody>(response, response.status)).error.code}`
}
