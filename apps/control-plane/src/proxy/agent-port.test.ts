import type { ServerResponse } from 'node:http'
import { signatureOf } from '@wrenn/base'
import type { NewApiKey } from '@wrenn/protocol'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from '../store/database.js'
import { json, type Platform, startPlatform } from '../testing/harness.js'
import { dial, exchange, readUntil, type Service, serve } from '../testing/proxied.js'

const TOKEN = '0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0'

let platform: Platform
/** In place of the guest agent of every capsule. */
let agent: Service
let seen: { route: string; headers: string }[] = []
let streams: ServerResponse[] = []
/** A capsule with an access token. */
let id: string
/** One without. */
let own: string

beforeAll(async () => {
  platform = await startPlatform()
  agent = await serve((request, response) => {
    seen.push({ route: `${request.method} ${request.url}`, headers: request.rawHeaders.join('\n').toLowerCase() })
    response.setHeader('cache-control', 'public, max-age=600')
    if (request.url !== '/process.Process/Start') return void response.end('from the agent')
    streams.push(response)
    response.write('first')
  })
  platform.host.agentPort = agent.port
  own = (await platform.create()).id
}, 300_000)
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
}, 300_000)
beforeEach(async () => {
  id = (await platform.create()).id
  await giveToken(id)
  seen = []
  streams = []
})
afterEach(async () => {
  for (const stream of streams) stream.destroy()
  await platform.call('DELETE', `/v1/capsules/${id}`)
})

/** As the front door for clients of the E2B wire makes them. */
async function giveToken(capsule: string): Promise<void> {
  const db = openDatabase({ url: platform.databaseUrl })
  await db.updateTable('capsules').set({ access_token: TOKEN }).where('id', '=', capsule).execute()
  await db.destroy()
}

const withToken = [`X-Access-Token: ${TOKEN}`]
const head = (route: string, headers: readonly string[], capsule = id): string =>
  [`${route} HTTP/1.1`, `Host: 49983-${capsule}.localhost`, 'Connection: close', ...headers, '', ''].join('\r\n')
const ask = (route: string, headers: readonly string[] = withToken, capsule = id): Promise<string> =>
  exchange(platform, head(route, headers, capsule))
const shared = (route: string, headers: readonly string[]): Promise<string> =>
  exchange(platform, [`${route} HTTP/1.1`, 'Host: localhost', 'Connection: close', ...headers, '', ''].join('\r\n'))
const statusOf = (answer: string): number => Number(answer.slice(9, 12))
const bodyOf = (answer: string): unknown => JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')))

describe('the guest agent', () => {
  it('is reached by its host name and by the routing headers', async () => {
    expect(await ask('GET /files?path=a')).toContain('from the agent')
    const routing = [`E2b-Sandbox-Id: ${id}`, 'E2b-Sandbox-Port: 49983', ...withToken]
    expect(await shared('GET /files?path=b', routing)).toContain('from the agent')
    expect(await shared('GET /health', routing)).toContain('from the agent')
    expect(seen.map(({ route }) => route)).toEqual(['GET /files?path=a', 'GET /files?path=b', 'GET /health'])
  })

  it('has answers that no cache keeps, for all capsules have the same URLs', async () => {
    const routing = [`E2b-Sandbox-Id: ${id}`, 'E2b-Sandbox-Port: 49983', ...withToken]
    for (const answer of [await ask('GET /files?path=a'), await shared('GET /files?path=a', routing)]) {
      expect(answer.match(/^cache-control:.*$/gim)).toEqual(['Cache-Control: no-store'])
    }
  })

  it('serves its routes for clients and no other, in no spelling', { timeout: 60_000 }, async () => {
    const routes = [
      ...[
        'POST /init',
        'GET /init',
        'PUT /init',
        'POST /INIT',
        'POST /Init',
        'POST /init/',
        'POST /init?',
        'POST /init?a=/files',
      ],
      ...['POST //init', 'POST /./init', 'POST /files/../init', 'POST /health/../init', 'POST /%69nit', 'POST /in%69t'],
      ...[
        'POST /%2finit',
        'POST /..%2finit',
        'POST /%2e/init',
        'POST /init%20',
        'POST /init;a',
        'POST /init#/files',
        'POST /init.',
      ],
      ...['POST /\\init', 'POST /files\\..\\init', 'POST /files/..;/init', 'POST /init%00', 'POST *'],
      ...[
        'GET /activity',
        'POST /quiesce',
        'GET /archive?path=/',
        'PUT /archive?path=/',
        'PUT /files?path=a',
        'DELETE /files',
      ],
      ...[
        'GET /connect/22',
        'GET /client-line',
        'POST /freeze',
        'GET /',
        'GET /nothing',
        'POST /process.Process/start',
      ],
      ...[
        'GET /process.Process/List',
        'POST /process.Process/',
        'POST /process.Process',
        'TRACE /health',
        'POST /health',
      ],
      `POST http://49983-${id}.localhost/init`,
      `POST http://49983-${id}.localhost//init`,
    ]
    const routing = [`E2b-Sandbox-Id: ${id}`, 'E2b-Sandbox-Port: 49983', ...withToken, 'Content-Length: 0']
    for (const route of routes) {
      const answer = await ask(route, [...withToken, 'Content-Length: 0'])
      expect([route, statusOf(answer), bodyOf(answer)]).toEqual([
        route,
        404,
        { code: 404, message: 'The guest agent has no such route.' },
      ])
      if (!route.includes('http:')) expect([route, statusOf(await shared(route, routing))]).toEqual([route, 404])
    }
    for (const header of ['X-Original-URL: /init', 'X-Rewrite-URL: /init', 'X-HTTP-Method-Override: PUT'])
      expect(statusOf(await ask('GET /health', [...withToken, header]))).toBe(200)
    expect(seen.every(({ route }) => route === 'GET /health')).toBe(true)
  })

  it('has one name', async () => {
    for (const port of ['049983', '49983.', '+49983', '%34%39983', '115519', '0xC33F', '49983, 80']) {
      const host = `GET /envs HTTP/1.1\r\nHost: ${port}-${id}.localhost\r\nConnection: close\r\n\r\n`
      const routing = [`E2b-Sandbox-Id: ${id}`, `E2b-Sandbox-Port: ${port}`]
      for (const answer of [await exchange(platform, host), await shared('GET /envs', routing)])
        expect([port, answer]).toEqual([port, expect.stringMatching(/^HTTP\/1\.1 4\d\d /)])
    }
    expect(seen).toEqual([])
  })

  it('learns neither the token nor what would prove a host, and which user is asked for', async () => {
    const user = 'Authorization: Basic dXNlcjo='
    await ask('POST /filesystem.Filesystem/Stat', [
      ...withToken,
      ...[user, 'X-Wrenn-Secret: guess', 'X_Wrenn_Secret: guess', 'Content-Length: 0', `X-API-Key: ${platform.key}`],
      'Keepalive-Ping-Interval: 50',
    ])
    const [{ headers = '' } = {}] = seen
    expect(headers).toContain('authorization\nbasic dxnlcjo=')
    expect(headers).toContain('keepalive-ping-interval\n50')
    for (const secret of ['access-token', 'secret', 'api-key']) expect(headers).not.toContain(secret)
  })
})

describe('who may ask the guest agent', () => {
  const refused = { code: 401, message: 'The request needs x-access-token.' }

  it('is who has the access token, or a key of the team', async () => {
    for (const headers of [
      [],
      ['X-Access-Token: '],
      [`X-Access-Token: ${TOKEN}x`],
      [`X-Access-Token: ${TOKEN.toLowerCase()}`],
      [`Authorization: Bearer ${TOKEN}`],
      ['X-API-Key: wrn_0000000000000000'],
    ]) {
      const answer = await ask('GET /metrics', headers)
      expect([headers, statusOf(answer), bodyOf(answer)]).toEqual([headers, 401, refused])
    }
    expect(statusOf(await ask(`GET /metrics?x_access_token=${TOKEN}`, []))).toBe(401)
    expect(seen).toEqual([])
    expect(statusOf(await ask('GET /metrics', withToken))).toBe(200)
    expect(statusOf(await ask('GET /metrics', [`X-API-Key: ${platform.key}`]))).toBe(200)
  })

  it('of a capsule without a token is a key that may use capsules, also for /health', async () => {
    for (const headers of [[], withToken, ['X-Access-Token: '], ['X-Access-Token: null']]) {
      expect(statusOf(await ask('GET /health', headers, own))).toBe(401)
      expect(statusOf(await ask('GET /files?path=a&signature=v1_x', headers, own))).toBe(401)
    }
    const made = await platform.call('POST', '/v1/api-keys', { name: 'reads', scopes: ['read'] })
    const { key } = await json<NewApiKey>(made, 201)
    expect(statusOf(await ask('GET /metrics', [`X-API-Key: ${key}`], own))).toBe(403)
    expect(seen).toEqual([])
    expect(statusOf(await ask('GET /health', [`X-API-Key: ${platform.key}`], own))).toBe(200)
  })

  it('may be anybody for /health of a capsule with a token', async () => {
    expect(statusOf(await ask('GET /health', []))).toBe(200)
  })

  it('has a signature for one file, one operation, one user and a time', async () => {
    const vector = 'path=hello.txt&username=user&signature=v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E'
    const basic = ['Authorization: Basic cm9vdDo=']
    expect(statusOf(await ask(`GET /files?${vector}`, basic))).toBe(200)
    expect(seen[0]?.headers).not.toContain('authorization')
    for (const [name, route] of Object.entries({
      path: `GET /files?${vector.replace('hello', 'other')}`,
      operation: `POST /files?${vector}`,
      user: `GET /files?${vector.replace('username=user', 'username=root')}`,
      first: `GET /files?path=other&${vector}`,
      expiry: `GET /files?${vector}&signature_expiration=99999999999`,
      route: `GET /metrics?${vector}`,
      signature: `GET /files?${vector.replace('v1_', '')}`,
      mode: `GET /files?${vector}&mode=4755`,
      more: `GET /files?${vector}&x`,
    }))
      expect([name, statusOf(await ask(route, ['Content-Length: 0']))]).toEqual([name, 401])
    const signed = { path: 'a b', operation: 'write', user: '' } as const
    const write = (expiration: string): string => {
      const signature = encodeURIComponent(signatureOf({ ...signed, expiration }, TOKEN))
      return `POST /files?path=a%20b&signature=${signature}&signature_expiration=${expiration}`
    }
    const expired = await ask(write('1700000000'), ['Content-Length: 0'])
    expect(expired).toMatch(/^HTTP\/1\.1 401 [\s\S]*\r\n\r\n\{"code":401,"message":"signature is already expired"\}$/)
    expect(statusOf(await ask(write('99999999999'), ['Content-Length: 0']))).toBe(200)
  })

  it('is a page from anywhere, which is told so before it asks', async () => {
    const asked = 'Access-Control-Request-Headers: authorization,content-type,e2b-sandbox-id,x-access-token'
    const preflight = ['Origin: https://app.example', 'Access-Control-Request-Method: POST', asked]
    const answers = [
      await ask('OPTIONS /process.Process/Start', preflight),
      await shared('OPTIONS /process.Process/Start', preflight),
    ]
    for (const answer of answers) {
      expect(answer).toMatch(/^HTTP\/1\.1 204 [\s\S]*access-control-allow-origin: \*/i)
      expect(answer).toMatch(/access-control-allow-headers: authorization,content-type,e2b-sandbox-id,x-access-token/i)
    }
    expect(seen).toEqual([])
    for (const headers of [withToken, []])
      expect(await ask('GET /metrics', headers)).toMatch(/access-control-allow-origin: \*/i)
    expect(await shared('OPTIONS /v1/capsules', preflight)).toContain('x-request-id')
  })
})

describe('a stream of the guest agent', () => {
  const start = (headers: readonly string[]) => {
    const socket = dial(platform)
    socket.write(head('POST /process.Process/Start', [...headers, 'Content-Length: 0']))
    const reset = new Promise((resolve) => socket.once('error', resolve).once('close', () => resolve('ended')))
    return { socket, reset }
  }

  it('is reset when the capsule is destroyed, and /health says 502 from then on', async () => {
    const { socket, reset } = start(withToken)
    await readUntil(socket, /first/)
    await platform.call('DELETE', `/v1/capsules/${id}`)
    expect(await reset).toMatchObject({ code: 'ECONNRESET' })
    const answer = await ask('GET /health', [])
    expect([statusOf(answer), bodyOf(answer)]).toEqual([
      502,
      { sandboxId: id, message: 'The sandbox was not found', code: 502 },
    ])
    expect(answer).toMatch(/content-type: application\/json; charset=utf-8/)
  })

  it('is reset when its guest dies', async () => {
    const { socket, reset } = start(withToken)
    await readUntil(socket, /first/)
    platform.host.die(id, { cause: 'guest_panic', message: 'gone' })
    expect(await reset).toMatchObject({ code: 'ECONNRESET' })
    expect(statusOf(await ask('GET /health', []))).toBe(502)
  })

  it('is reset when the key that opened it is revoked', async () => {
    const { id: keyId, key } = await json<NewApiKey>(
      await platform.call('POST', '/v1/api-keys', { name: 'short' }),
      201,
    )
    const { socket, reset } = start([`X-API-Key: ${key}`])
    await readUntil(socket, /first/)
    await platform.call('DELETE', `/v1/api-keys/${keyId}`)
    expect(await reset).toMatchObject({ code: 'ECONNRESET' })
  })
})

describe('a capsule of clients of the E2B wire', () => {
  it('is not found while it sleeps, unless it wakes when it is used', async () => {
    await platform.call('POST', `/v1/capsules/${id}/pause`)
    const answer = await ask('GET /health', [])
    expect(bodyOf(answer)).toEqual({ sandboxId: id, message: 'The sandbox was not found', code: 502 })
    await platform.call('PATCH', `/v1/capsules/${id}`, { auto_resume: true })
    expect(statusOf(await ask('GET /metrics', []))).toBe(401)
    expect(statusOf(await ask('PUT /init'))).toBe(404)
    expect((await platform.get(id)).state).toBe('paused')
    expect(statusOf(await ask('GET /metrics'))).toBe(200)
    expect((await platform.get(id)).state).toBe('running')
  })

  it('has the words of that wire for its other ports too', async () => {
    const closed = await serve(() => {})
    await closed[Symbol.asyncDispose]()
    const { port } = closed
    const at = (capsule: string, more: readonly string[] = []) =>
      exchange(
        platform,
        [`GET / HTTP/1.1`, `Host: ${port}-${capsule}.localhost`, 'Connection: close', ...more, '', ''].join('\r\n'),
      )
    expect(bodyOf(await at(id))).toEqual({
      ...{ sandboxId: id, port, code: 502 },
      message: 'The sandbox is running but port is not open',
    })
    expect(bodyOf(await at(own))).toMatchObject({ error: { code: 'port_closed' } })
    await platform.call('PATCH', `/v1/capsules/${id}`, { port_access: 'private' })
    const refused = await at(id)
    expect([statusOf(refused), bodyOf(refused)]).toEqual([
      403,
      { sandboxId: id, message: expect.any(String), port, code: 403 },
    ])
    expect(await at(id, ['Accept: text/html'])).toMatch(/^HTTP\/1\.1 403 [\s\S]*<h1>This address is private/)
  })

  it('does not show services the token for its agent', async () => {
    const headers: string[] = []
    await using service = await serve((request, response) => {
      headers.push(String(request.headers['x-access-token']))
      response.end()
    })
    for (const value of [TOKEN, 'of-the-service']) {
      const lines = [
        'GET / HTTP/1.1',
        `Host: ${service.port}-${id}.localhost`,
        'Connection: close',
        `X-Access-Token: ${value}`,
      ]
      await exchange(platform, `${lines.join('\r\n')}\r\n\r\n`)
    }
    expect(headers).toEqual(['undefined', 'of-the-service'])
  })
})

describe('a name that old clients give a capsule', () => {
  it('has the id of a machine behind it, which says nothing', async () => {
    const routing = [`E2b-Sandbox-Id: ${id}-6532622b`, 'E2b-Sandbox-Port: 49983']
    expect(await shared('GET /health', routing)).toContain('from the agent')
  })
})

describe('an unknown capsule', () => {
  it('is not found at the agent’s port in the words of that wire, by whatever name', async () => {
    for (const name of [`cl-${'0'.repeat(25)}`, 'abc123']) {
      const answer = await shared('GET /health', [`E2b-Sandbox-Id: ${name}`, 'E2b-Sandbox-Port: 49983'])
      expect([statusOf(answer), bodyOf(answer)]).toEqual([
        502,
        { sandboxId: name, message: 'The sandbox was not found', code: 502 },
      ])
    }
  })
})
