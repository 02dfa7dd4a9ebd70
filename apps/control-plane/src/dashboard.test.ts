import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Platform, startPlatform } from './testing/harness.js'
import { exchange } from './testing/proxied.js'

const SHELL = '<!doctype html><title>Wrenn</title><script>start()</script>'
const SCRIPT = `console.log(${JSON.stringify('x'.repeat(500))})`

let dir = ''
let platform: Platform
let bare: Platform

const base64 = (content: string | Buffer) => Buffer.from(content).toString('base64')

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-dashboard-'))
  const file = join(dir, 'dashboard.pack')
  const files = [
    { path: '/index.html', type: 'text/html; charset=utf-8', body: base64(SHELL) },
    {
      path: '/_app/immutable/start.js',
      type: 'text/javascript; charset=utf-8',
      body: base64(SCRIPT),
      gzip: base64(gzipSync(SCRIPT)),
    },
    { path: '/favicon.svg', type: 'image/svg+xml', body: base64('<svg/>') },
  ]
  await writeFile(file, JSON.stringify({ files }))
  platform = await startPlatform({ env: { WRENN_DASHBOARD: file } })
  bare = await startPlatform({ databaseUrl: serverOf(platform), env: { WRENN_DASHBOARD: join(dir, 'missing.pack') } })
}, 120_000)

afterAll(async () => {
  await bare?.[Symbol.asyncDispose]()
  await platform?.[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})

/** The same server, on which each platform has a database of its own. */
function serverOf({ databaseUrl }: Platform): string {
  return databaseUrl.replace(/\/test_[0-9a-f]+(\?|$)/, '/postgres$1')
}

const get = (path: string, headers: Record<string, string> = {}) => fetch(platform.url + path, { headers })
const asBrowser = { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' }

describe('the dashboard', () => {
  it('has its shell at every address of a page, never kept and in no frame', async () => {
    for (const path of [
      '/',
      '/login?next=%2F',
      '/dashboard',
      '/dashboard/capsules/cl-1/files?path=%2F',
      '/invitation',
    ]) {
      const answer = await get(path)
      expect([path, answer.status, await answer.text()]).toEqual([path, 200, SHELL])
      expect(Object.fromEntries(answer.headers)).toMatchObject({
        'content-type': 'text/html; charset=utf-8',
        'cache-control': 'no-store',
        'content-security-policy': expect.stringMatching(
          /^default-src 'none'; script-src 'self' 'sha256-[^']+';.*frame-ancestors 'none'$/,
        ),
        'x-frame-options': 'DENY',
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
      })
    }
  })

  it('has its files for ever, in the coding that the client takes', async () => {
    const answer = await get('/_app/immutable/start.js', { 'accept-encoding': 'identity' })
    expect(await answer.text()).toBe(SCRIPT)
    expect(answer.headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
    expect(answer.headers.get('vary')).toContain('Accept-Encoding')
    const raw = await exchange(
      platform,
      'GET /_app/immutable/start.js HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n',
    )
    const [head = '', body = ''] = raw.split('\r\n\r\n')
    expect(head.toLowerCase()).toContain('content-encoding: gzip')
    expect(gunzipSync(Buffer.from(body, 'latin1')).toString()).toBe(SCRIPT)
    expect((await get('/favicon.svg')).headers.get('cache-control')).toBe('no-cache')
  })

  it('gives no file by any other name', async () => {
    const names = [
      '/_app/immutable/missing.js',
      '/_app/../index.html',
      '/_app/%2e%2e/%2e%2e/etc/passwd',
      '/_app/..%2findex.html',
      '/_app/immutable/start.js/',
      '/_app/immutable//start.js',
      '/_app/immutable/start.js%00',
      '/_app/%zz',
      '/_app/%c0%ae%c0%ae/x',
      '/index.html',
      '/dashboard/%zz',
    ]
    for (const name of names) {
      const raw = await exchange(platform, `GET ${name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
      expect([name, raw.slice(9, 12)]).toEqual([name, expect.stringMatching(/^40[04]$/)])
      expect(raw).toContain('"error"')
    }
  })

  it('tells a person of an address that does not exist by a page, and a program as before', async () => {
    const page = await get('/nowhere', asBrowser)
    expect([page.status, await page.text()]).toEqual([404, SHELL])
    for (const path of ['/nowhere', '/v1/nowhere', '/sandboxesx']) {
      const answer = await get(path, path === '/nowhere' ? { accept: 'application/json' } : {})
      expect([path, answer.status, await answer.json()]).toEqual([
        path,
        404,
        { error: expect.objectContaining({ code: 'not_found' }) },
      ])
    }
    const api = await get('/v1/nowhere', asBrowser)
    expect([api.status, api.headers.get('content-type')]).toEqual([404, 'application/json; charset=utf-8'])
  })

  it('leaves the routes of programs alone, whoever asks', async () => {
    expect((await get('/templates', asBrowser)).status).toBe(401)
    expect((await get('/v1/capsules', asBrowser)).status).toBe(401)
    expect((await get('/openapi.json', asBrowser)).headers.get('content-type')).toContain('application/json')
    expect((await fetch(`${platform.url}/dashboard/capsules`, { method: 'POST' })).status).toBe(405)
  })

  it('says where it is not built how it is', async () => {
    for (const path of ['/', '/dashboard/capsules']) {
      const answer = await fetch(bare.url + path, { headers: asBrowser })
      expect([path, answer.status, await answer.json()]).toEqual([
        path,
        404,
        { error: expect.objectContaining({ message: expect.stringContaining('npm run build') }) },
      ])
    }
  })
})
