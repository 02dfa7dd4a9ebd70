import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Login, Logins } from './logins.js'
import { tokenSource } from './tokens.js'

const URL_HERE = 'http://127.0.0.1:8000'
const HOUR_MS = 3_600_000

let dir: string
let file: string
let server: Server
let url: string
/** Of each request, and what the next ones are answered. */
let refreshed: unknown[]
let answer: { status: number; body: (count: number) => object }

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-login-'))
  file = join(dir, 'settings/wrenn/logins.json')
  refreshed = []
  answer = { status: 200, body: (count) => auth(count) }
  server = createServer((request, response) => {
    let text = ''
    request.on('data', (chunk) => {
      text += chunk
    })
    request.on('end', () => {
      refreshed.push(JSON.parse(text))
      response.writeHead(answer.status, { 'content-type': 'application/json' })
      response.end(JSON.stringify(answer.body(refreshed.length)))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}` // of a listener with a port
})
afterEach(async () => {
  server.close()
  server.closeAllConnections()
  await rm(dir, { recursive: true })
})

const auth = (count: number) => ({
  session_id: 'ses-1',
  user_id: 'usr-1',
  team_id: 'team-1',
  email: 'ada@example.org',
  name: 'Ada',
  token: `wra_${count}`,
  refresh_token: `wrr_${count}`,
  expires_at: new Date(Date.now() + HOUR_MS).toISOString(),
})
const login = (leftMs: number, number = 0): Login => ({
  session_id: 'ses-1',
  user_id: 'usr-1',
  email: 'ada@example.org',
  token: `wra_${number}`,
  refresh_token: `wrr_${number}`,
  expires_at: new Date(Date.now() + leftMs).toISOString(),
})
const keep = async (apiUrl: string, kept: Login): Promise<void> => {
  await new Logins(file).change(apiUrl, async () => kept)
}

describe('the logins of a user', () => {
  it('are kept for each platform, where only the user can read them', async () => {
    const logins = new Logins(file)
    expect(await logins.find(URL_HERE)).toBeUndefined()
    await keep(URL_HERE, login(HOUR_MS))
    await keep('https://wrenn.example', login(HOUR_MS, 7))
    expect((await logins.find(URL_HERE))?.token).toBe('wra_0')
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect((await stat(join(dir, 'settings/wrenn'))).mode & 0o777).toBe(0o700)
    await logins.change(URL_HERE, async () => undefined)
    expect(await logins.find(URL_HERE)).toBeUndefined()
    expect((await logins.find('https://wrenn.example'))?.token).toBe('wra_7')
  })

  it('are changed one after the other', async () => {
    const count = (current: Login | undefined): number => Number(current?.token.slice(4) ?? 0)
    const changes = Array.from({ length: 20 }, () =>
      new Logins(file).change(URL_HERE, async (current) => login(HOUR_MS, count(current) + 1)),
    )
    await Promise.all(changes)
    expect(count(await new Logins(file).find(URL_HERE))).toBe(20)
  })

  it('are not guessed from a file that is something else', async () => {
    await keep(URL_HERE, login(HOUR_MS))
    await writeFile(file, '{"version":1,"logins":{"x":{"token":1}}}')
    await expect(new Logins(file).find(URL_HERE)).rejects.toMatchObject({ code: 'invalid_config' })
    expect(await readFile(file, 'utf8')).toContain('"x"')
  })
})

describe('the token of a login', () => {
  it('is the one that is there while it is good', async () => {
    await keep(url, login(HOUR_MS))
    const token = tokenSource(new Logins(file), url, fetch)
    expect([await token(), await token()]).toEqual(['wra_0', 'wra_0'])
    expect(refreshed).toEqual([])
  })

  it('is renewed before its end, once, however many commands run', async () => {
    await keep(url, login(1_000))
    const sources = Array.from({ length: 8 }, () => tokenSource(new Logins(file), url, fetch))
    expect(new Set(await Promise.all(sources.map((token) => token())))).toEqual(new Set(['wra_1']))
    expect(refreshed).toEqual([{ refresh_token: 'wrr_0' }])
    expect(await new Logins(file).find(url)).toMatchObject({ token: 'wra_1', refresh_token: 'wrr_1' })
  })

  it('is no more when the session is over, and the login is forgotten', async () => {
    await keep(url, login(1_000))
    answer = { status: 401, body: () => ({ error: { code: 'unauthorized', message: 'The session is over.' } }) }
    const token = tokenSource(new Logins(file), url, fetch)
    await expect(token()).rejects.toMatchObject({
      code: 'unauthorized',
      message: expect.stringContaining('wrenn login'),
    })
    expect(await new Logins(file).find(url)).toBeUndefined()
  })

  it('is kept for later when the platform cannot answer', async () => {
    await keep(url, login(1_000))
    answer = { status: 503, body: () => ({ error: { code: 'database_unavailable', message: 'Not now.' } }) }
    await expect(tokenSource(new Logins(file), url, fetch)()).rejects.toMatchObject({ code: 'database_unavailable' })
    expect((await new Logins(file).find(url))?.refresh_token).toBe('wrr_0')
  })
})
