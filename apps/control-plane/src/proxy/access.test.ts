import type { Capsule, ForkResult, NewApiKey, Ports } from '@wrenn/protocol'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform, startReplica } from '../testing/harness.js'
import { dial, exchange, readUntil, type Service, serve } from '../testing/proxied.js'

let platform: Platform
let service: Service
let id: string
let token: string
let asked: { url: string; headers: string }[] = []

beforeAll(async () => {
  platform = await startPlatform()
  service = await serve((request, response) => {
    asked.push({ url: request.url ?? '', headers: request.rawHeaders.join('\n') })
    response.end('hello')
  })
  id = (await platform.create({ port_access: 'private' })).id
  token = (await portsOf(id)).token ?? ''
}, 60_000)
afterAll(async () => {
  await service[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
}, 60_000)
beforeEach(() => {
  asked = []
})

const portsOf = async (capsule: string): Promise<Ports> =>
  await json<Ports>(await platform.call('GET', `/v1/capsules/${capsule}/ports`), 200)
const update = async (capsule: string, body: object): Promise<Capsule> =>
  await json<Capsule>(await platform.call('PATCH', `/v1/capsules/${capsule}`, body), 200)
const host = (capsule = id): string => `${service.port}-${capsule}.localhost`
const ask = async (
  path: string,
  headers: readonly string[] = [],
  at: Pick<Platform, 'url'> = platform,
  capsule = id,
) => {
  const head = [`GET ${path} HTTP/1.1`, `Host: ${host(capsule)}`, 'Connection: close', ...headers]
  return await exchange(at, `${head.join('\r\n')}\r\n\r\n`)
}
const status = (answer: string): number => Number(answer.slice(9, 12))
const PAGE = 'Accept: text/html'

describe('a capsule whose ports are private', () => {
  it('says so, and tells its token only to who may use it', async () => {
    expect(await platform.get(id)).toMatchObject({ port_access: 'private' })
    expect(JSON.stringify(await platform.get(id))).not.toContain(token)
    const { port } = new URL(platform.url)
    expect(await portsOf(id)).toEqual({ access: 'private', domain: `localhost:${port}`, token })
    expect(token).toMatch(/^wpt_[\w-]{43}$/)
    const other = await platform.create()
    expect(await portsOf(other.id)).toEqual({ access: 'public', domain: `localhost:${port}` })
  })

  it.each([49_999, 8_888])(
    'is closed to others at port %i, where the code interpreter runs code for who asks',
    async (port) => {
      const closed = async (...lines: readonly string[]): Promise<number> =>
        status(await exchange(platform, `${[...lines, `Host: ${port}-${id}.localhost`].join('\r\n')}\r\n\r\n`))
      expect(await closed('POST /execute HTTP/1.1', 'Content-Length: 0', 'Connection: close')).toBe(403)
      expect(await closed('GET /api/kernels HTTP/1.1', 'Connection: close')).toBe(403)
      const upgrade = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13']
      const socket = ['GET /api/kernels/1/channels HTTP/1.1', ...upgrade, 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==']
      expect(await closed(...socket, 'Origin: https://elsewhere.example')).toBe(403)
    },
  )

  it('is closed to others, by every way', async () => {
    const wrong = `${token.slice(0, -1)}_`
    for (const headers of [
      [],
      [`X-Wrenn-Port-Token: ${wrong}`],
      [`X-Wrenn-Port-Token: ${token}`, 'X-Wrenn-Port-Token: x'],
      [`Cookie: wrenn_port_token=${wrong}`],
      ['X-API-Key: wrn_00000000000000000000000000000000'],
      ['X-API-Key: of-the-service'],
      ['Connection: Upgrade', 'Upgrade: websocket'],
    ]) {
      expect(await ask('/', headers)).toMatch(/^HTTP\/1\.1 403 [\s\S]*wrenn-error-code: forbidden/)
    }
    expect(status(await ask(`/?wrenn_port_token=${wrong}`, [PAGE]))).toBe(403)
    expect(asked).toEqual([])
  })

  it('keeps the token from a service also where a page’s own address has it', async () => {
    const page = `http://${host()}/page?a=1&wrenn_port_token=${token}&b=2`
    await ask('/style.css', [`X-Wrenn-Port-Token: ${token}`, `Referer: ${page}`])
    expect(asked[0]?.headers).toContain(`Referer\nhttp://${host()}/page?a=1&b=2`)
    expect(asked[0]?.headers).not.toContain(token)
  })

  it('takes the token as a header, in the query, as a cookie, or a key of its team, and shows none of them to the service', async () => {
    for (const [path, headers] of [
      ['/x', [`X-Wrenn-Port-Token: ${token}`]],
      ['/x', [`E2b-Traffic-Access-Token: ${token}`]],
      ['/x', [`Cookie: wrenn_port_token=${token}`]],
      ['/x', [`Cookie: a=1; wrenn_port_token=bad; wrenn_port_token=${token}; b=2`]],
      ['/x', [`X-API-Key: ${platform.key}`]],
      ['/x', [`Authorization: Bearer ${platform.key}`]],
      [`/x?wrenn_port_token=${token}`, []],
      [`/x?a=%20&wrenn_port_token=${token}&b`, []],
    ] as const) {
      expect(status(await ask(path, headers))).toBe(200)
    }
    expect(asked.map(({ url }) => url)).toEqual([...Array(7).fill('/x'), '/x?a=%20&b'])
    expect(JSON.stringify(asked)).not.toMatch(/wpt_|wrn_|wrenn_port_token/)
    expect(asked[3]?.headers).toMatch(/cookie\na=1; b=2/i)
  })

  it('gives a browser a cookie for the token in its address, once, and never leads elsewhere', async () => {
    const first = await ask(`/a?b=c&wrenn_port_token=${token}`, [PAGE])
    expect(first).toMatch(/^HTTP\/1\.1 302 /)
    expect(first).toMatch(new RegExp(`^location: http://${host()}/a\\?b=c\\r$`, 'im'))
    const cookie = /^set-cookie: (.*?); Path=\/; HttpOnly; SameSite=Lax\r$/im.exec(first)?.[1]
    expect(first).not.toMatch(/domain=/i)
    expect(status(await ask('/a?b=c', [PAGE, `Cookie: ${cookie}`]))).toBe(200)
    expect(await ask(`//evil.example/?wrenn_port_token=${token}`, [PAGE])).toMatch(
      new RegExp(`^location: http://${host()}//evil\\.example/\\r$`, 'im'),
    )
  })

  it('does not let the cookie work for pages of others', async () => {
    const cookie = `Cookie: wrenn_port_token=${token}`
    const other = `cl-${'0'.repeat(25)}`
    for (const foreign of [
      [`Origin: http://8080-${other}.localhost`],
      [`Origin: http://8080-${id}.evil.example`],
      ['Origin: null'],
      ['Sec-Fetch-Site: same-site', 'Sec-Fetch-Mode: no-cors'],
      ['Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: cors'],
    ]) {
      expect(status(await ask('/', [cookie, ...foreign]))).toBe(403)
      expect(status(await ask('/', [`X-Wrenn-Port-Token: ${token}`, ...foreign]))).toBe(200)
    }
    for (const own of [
      [`Origin: http://${host()}`],
      [`Origin: http://3000-${id}.localhost`],
      ['Sec-Fetch-Site: same-site', 'Sec-Fetch-Mode: navigate'],
      ['Sec-Fetch-Site: same-origin', 'Sec-Fetch-Mode: cors'],
      ['Sec-Fetch-Site: none', 'Sec-Fetch-Mode: navigate'],
    ]) {
      expect(status(await ask('/', [cookie, ...own]))).toBe(200)
    }
  })

  it('is believed at once to have become so, or public, here and at other control planes', async () => {
    await using replica = await startReplica(platform)
    const capsule = (await platform.create()).id
    const both = async (): Promise<number[]> => [
      status(await ask('/', [], platform, capsule)),
      status(await ask('/', [], replica, capsule)),
    ]
    expect(await both()).toEqual([200, 200])
    expect(await update(capsule, { port_access: 'private' })).toMatchObject({ port_access: 'private' })
    expect(status(await ask('/', [], platform, capsule))).toBe(403)
    await expect.poll(both).toEqual([403, 403])
    const before = (await portsOf(capsule)).token
    await update(capsule, { port_access: 'private' })
    expect((await portsOf(capsule)).token).toBe(before)
    await update(capsule, { port_access: 'public' })
    expect(status(await ask('/', [], platform, capsule))).toBe(200)
    await update(capsule, { port_access: 'private' })
    expect((await portsOf(capsule)).token).not.toBe(before)
    expect(status(await ask('/', [`X-Wrenn-Port-Token: ${before}`], platform, capsule))).toBe(403)
  })

  it('is left by a client that speaks another protocol when the key that let it through ends', async () => {
    service.server.on('upgrade', (_request, socket) => {
      socket.on('error', () => {}).once('end', () => socket.end())
      socket.resume()
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n')
    })
    const made = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes: ['capsules'] }), 201)
    const upgrade = (key: string) =>
      `GET / HTTP/1.1\r\nHost: ${host()}\r\nX-API-Key: ${key}\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n`
    const [theirs, mine] = [dial(platform), dial(platform)]
    theirs.write(upgrade(made.key))
    mine.write(upgrade(platform.key))
    await Promise.all([theirs, mine].map((socket) => readUntil(socket, /Upgrade: lines\r\n\r\n/)))
    const left = new Promise((resolve) => theirs.once('close', resolve))
    expect((await platform.call('DELETE', `/v1/api-keys/${made.id}`)).status).toBe(204)
    theirs.resume()
    await left
    expect(mine.closed).toBe(false)
    mine.destroy()
  })

  it('has copies that are private too, each with a token of its own', async () => {
    const { capsules } = await json<ForkResult>(await platform.call('POST', `/v1/capsules/${id}/fork`, {}), 201)
    const copy = capsules[0]?.id ?? ''
    expect(capsules[0]?.port_access).toBe('private')
    expect(status(await ask('/', [`X-Wrenn-Port-Token: ${token}`], platform, copy))).toBe(403)
    const own = (await portsOf(copy)).token
    expect(status(await ask('/', [`X-Wrenn-Port-Token: ${own}`], platform, copy))).toBe(200)
  })
})
