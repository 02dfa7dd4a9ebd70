import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { waitFor } from '@wrenn/base'
import type { Auth, ErrorBody, Me } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform
let outbox: string

beforeAll(async () => {
  outbox = await mkdtemp(join(tmpdir(), 'wrenn-outbox-'))
  platform = await startPlatform({ env: { WRENN_SIGNUP: 'example.com', WRENN_MAIL_OUTBOX: outbox } })
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
  await rm(outbox, { recursive: true })
})

const post = (path: string, body: object, token?: string) =>
  fetch(platform.url + path, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    body: JSON.stringify(body),
  })

async function codeOf(response: Response): Promise<string> {
  return (await json<ErrorBody>(response, response.status)).error.code
}

/** All mails to an address, oldest first, with their lines made whole again (RFC 2045 §6.7). */
async function mailsTo(address: string): Promise<string[]> {
  const names = (await readdir(outbox)).filter((name) => name.endsWith('.eml')).sort()
  const mails = await Promise.all(names.map(async (name) => await readFile(join(outbox, name), 'utf8')))
  return mails
    .filter((mail) => mail.includes(`To: ${address}`))
    .map((mail) => mail.replace(/=\r?\n/g, '').replace(/=3D/g, '='))
}

/** The newest mail to an address, when there are `count`. */
async function mailTo(address: string, count: number): Promise<string> {
  return await waitFor(
    async () => {
      const mails = await mailsTo(address)
      return mails.length >= count ? mails.at(-1) : undefined
    },
    { timeoutMs: 20_000, what: `mail to ${address}` },
  )
}

function tokenIn(mail: string, path: string): string {
  const token = new RegExp(`${path}#token=([0-9a-f]{64})`).exec(mail)?.[1]
  if (token === undefined) throw new Error(`no link to ${path} in ${mail}`)
  return token
}

describe('who signs up', () => {
  it('follows the link in a mail and is logged in; the answer is the same for who has an account', async () => {
    const email = 'ada@example.com'
    const body = { email: 'Ada@Example.com', password: 'correct horse', name: 'Ada' }
    const first = await json<object>(await post('/v1/auth/signup', body), 201)
    const token = tokenIn(await mailTo(email, 1), '/activate')
    expect(await codeOf(await post('/v1/auth/login', { email, password: 'correct horse' }))).toBe(
      'account_not_activated',
    )
    const session = await json<Auth>(await post('/v1/auth/activate', { token }), 200)
    expect(session).toMatchObject({ email, name: 'Ada' })
    expect(await codeOf(await post('/v1/auth/activate', { token }))).toBe('invalid_token')
    expect(await json<object>(await post('/v1/auth/signup', { ...body, password: 'another one' }), 201)).toEqual(first)
    expect(await mailTo(email, 2)).not.toContain('token=')
    expect(await codeOf(await post('/v1/auth/login', { email, password: 'another one' }))).toBe('unauthorized')
  })

  it('twice for one address, has the password of the link that is followed, and the other leads nowhere then', async () => {
    const body = { email: 'grace@example.com', password: 'correct horse', name: 'Grace' }
    await post('/v1/auth/signup', body)
    const first = tokenIn(await mailTo(body.email, 1), '/activate')
    await post('/v1/auth/signup', { ...body, password: 'another horse', name: 'Mallory' })
    const second = tokenIn(await mailTo(body.email, 2), '/activate')
    expect(await json<Auth>(await post('/v1/auth/activate', { token: first }), 200)).toMatchObject({ name: 'Grace' })
    expect(await codeOf(await post('/v1/auth/activate', { token: second }))).toBe('invalid_token')
    expect(await codeOf(await post('/v1/auth/login', { email: body.email, password: 'another horse' }))).toBe(
      'unauthorized',
    )
    const { email, password } = body
    expect((await post('/v1/auth/login', { email, password })).status).toBe(200)
  })

  it('must have an address of the domains that the platform names', async () => {
    for (const email of ['eve@example.org', 'eve@sub.example.com', 'eve@example.com.evil.org']) {
      const response = await post('/v1/auth/signup', { email, password: 'correct horse', name: 'Eve' })
      expect([email, await codeOf(response)]).toEqual([email, 'forbidden'])
    }
    const bad = await post('/v1/auth/signup', { email: 'nonsense', password: 'correct horse', name: 'Eve' })
    expect(await codeOf(bad)).toBe('invalid_request')
  })
})

describe('who has forgotten the password', () => {
  it('chooses another one by a link, which ends all sessions; nobody else learns that there is an account', async () => {
    const email = 'joan@example.com'
    await post('/v1/auth/signup', { email, password: 'correct horse', name: 'Joan' })
    const activation = tokenIn(await mailTo(email, 1), '/activate')
    const { token: access = '' } = await json<Auth>(await post('/v1/auth/activate', { token: activation }), 200)
    const me = () => fetch(`${platform.url}/v1/me`, { headers: { authorization: `Bearer ${access}` } })
    expect(await json<Me>(await me(), 200)).toMatchObject({ email })
    expect((await post('/v1/me/password/reset', { email: 'nobody@example.com' })).status).toBe(204)
    expect((await post('/v1/me/password/reset', { email })).status).toBe(204)
    const token = tokenIn(await mailTo(email, 2), '/reset-password')
    const confirm = () => post('/v1/me/password/reset/confirm', { token, new_password: 'battery staple' })
    expect((await confirm()).status).toBe(204)
    expect(await codeOf(await confirm())).toBe('invalid_token')
    expect(await codeOf(await me())).toBe('unauthorized')
    expect((await post('/v1/auth/login', { email, password: 'battery staple' })).status).toBe(200)
    await mailTo(email, 3)
    expect(await mailsTo('nobody@example.com')).toEqual([])
  })
})
