import { randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Auth } from '@wrenn/protocol'
import { Api } from './api.js'
import { type Platform, wrenn } from './platform.js'
import { eventually } from './wait.js'

/** Of everybody that the tests make. */
export const PASSWORD = 'correct horse battery'

/** What goes with a call of somebody who has logged in. */
export const bearer = ({ token = '' }: Auth) => ({ headers: { authorization: `Bearer ${token}` } })

/** Runs `wrenn` with `--json`. @throws Error unless it ends with 0 */
export async function wrennJson<T>(
  platform: Platform,
  args: readonly string[],
  options: { readonly input?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<T> {
  const { code, stdout, stderr } = await wrenn(platform, [...args, '--json'], options)
  if (code !== 0) throw new Error(`wrenn ${args.join(' ')}: ${code} ${stderr}`)
  return JSON.parse(stdout)
}

/** A new session of an account. */
export async function logIn(platform: Platform, email: string, password = PASSWORD): Promise<Auth> {
  return await new Api(platform, '').json<Auth>('POST', '/v1/auth/login', { json: { email, password } })
}

/** Makes an account by the command line, and activates it. */
async function add(platform: Platform, email: string, name: string): Promise<{ id: string; email: string }> {
  const made = await wrennJson<{ id: string; activation_token: string }>(platform, ['user', 'add', email, name])
  await wrennJson(platform, ['user', 'activate', made.activation_token], { input: `${PASSWORD}\n` })
  return { id: made.id, email }
}

/** Somebody new, at an address that no earlier run of a kept directory has used. */
export async function addPerson(platform: Platform, name: string): Promise<{ id: string; email: string }> {
  return await add(platform, `${name.toLowerCase()}.${randomBytes(6).toString('hex')}@example.com`, name)
}

/** Makes the first account with the link that `wrenn up` has printed. */
async function setUp(platform: Platform, email: string, name: string): Promise<Auth> {
  const lines = (await readFile(platform.log, 'utf8')).split('\n').filter((line) => line.includes('"event":"ready"'))
  const { setup_url: url }: { setup_url: string } = JSON.parse(lines.at(-1) ?? '')
  const { origin, pathname, hash } = new URL(url)
  if (origin !== `http://localhost:${platform.port}` || pathname !== '/setup') throw new Error(`a strange link: ${url}`)
  const json = { code: new URLSearchParams(hash.slice(1)).get('code'), email, name, password: PASSWORD }
  return await new Api(platform, '').json<Auth>('POST', '/v1/auth/setup', { json })
}

/** A session of the first account of the platform, whichever test needs it first. */
export async function firstAdmin(platform: Platform): Promise<Auth> {
  const users = await wrennJson<{ email: string }[]>(platform, ['user', 'ls'])
  if (users.some(({ email }) => email === 'ada@example.com')) return await logIn(platform, 'ada@example.com')
  return await setUp(platform, 'ada@example.com', 'Ada')
}

/** The token of the newest link to `page` in mails to `address`, when there is one. */
export async function tokenInMail(platform: Platform, address: string, page: string): Promise<string> {
  const folder = join(platform.dir, 'outbox')
  return await eventually(`a mail to ${address} with a link to ${page}`, async () => {
    const names = (await readdir(folder)).filter((name) => name.endsWith('.eml')).sort()
    const mails = await Promise.all(names.map(async (name) => await readFile(join(folder, name), 'utf8')))
    const text = mails.filter((mail) => mail.includes(`To: ${address}`)).join('\n')
    // Lines are whole again (RFC 2045 §6.7).
    const whole = text.replace(/=\r?\n/g, '').replace(/=3D/g, '=')
    return [...whole.matchAll(new RegExp(`${page}#token=([0-9a-f]+)`, 'g'))].at(-1)?.[1]
  })
}
