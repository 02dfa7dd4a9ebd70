import type { Checkpoint, ForkResult } from '@wrenn/protocol'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from '../store/database.js'
import { json, type Platform, startPlatform } from '../testing/harness.js'
import { dial, exchange, readAll, readUntil, type Service, serve } from '../testing/proxied.js'

let platform: Platform
let service: Service
let id: string

beforeAll(async () => {
  platform = await startPlatform()
}, 60_000)
afterAll(() => platform[Symbol.asyncDispose]())
beforeEach(async () => {
  service = await serve((_request, response) => void response.end('hello'))
  id = (await platform.create({})).id
})
afterEach(async () => {
  await service[Symbol.asyncDispose]()
  await platform.call('DELETE', `/v1/capsules/${id}`)
})

const ask = (capsule = id, port = service.port, more = ''): string =>
  `GET / HTTP/1.1\r\nHost: ${port}-${capsule}.localhost\r\nConnection: close\r\n${more}\r\n`
const get = (capsule?: string, port?: number, more?: string): Promise<string> =>
  exchange(platform, ask(capsule, port, more))
const post = (path: string, body?: object) => platform.call('POST', `/v1/capsules/${id}${path}`, body)

async function closedPort(): Promise<number> {
  const closed = await serve(() => {})
  await closed[Symbol.asyncDispose]()
  return closed.port
}

describe('a port that does not answer', () => {
  it('says which of four things is so, to programs and on a page', async () => {
    const answers: [string, string, string, number][] = []
    const look = async (name: string, capsule: string, port: number) => {
      const [json, page] = [await get(capsule, port), await get(capsule, port, 'Accept: text/html,*/*;q=0.8\r\n')]
      const { error } = JSON.parse(json.slice(json.indexOf('\r\n\r\n')))
      expect(json).toContain(`wrenn-error-code: ${error.code}`)
      expect(page).toMatch(/^HTTP\/1\.1 \d+ [\s\S]*content-type: text\/html[\s\S]*<!doctype html>[\s\S]*<h1>/i)
      answers.push([name, error.code, /<h1>(.*)<\/h1>/.exec(page)?.[1] ?? '', Number(json.slice(9, 12))])
    }
    await look('closed', id, await closedPort())
    await post('/pause')
    await look('asleep', id, service.port)
    await platform.call('DELETE', `/v1/capsules/${id}`)
    await look('destroyed', id, service.port)
    await look('unknown', `cl-${'0'.repeat(25)}`, service.port)
    expect(answers).toEqual([
      ['closed', 'port_closed', 'Nobody listens on this port', 502],
      ['asleep', 'invalid_state', 'This capsule is asleep', 409],
      ['destroyed', 'capsule_ended', 'This capsule is gone', 410],
      ['unknown', 'capsule_not_found', 'There is no such capsule', 404],
    ])
  })

  it('says that the guest has died, and that its host is away', async () => {
    platform.host.die(id, { cause: 'guest_panic', message: '<b>The kernel panicked.</b>' })
    await platform.until(id, 'error')
    const page = await get(id, service.port, 'Accept: text/html\r\n')
    expect(page).toMatch(/^HTTP\/1\.1 410 [\s\S]*&#60;b&#62;The kernel panicked/)
    const other = (await platform.create({})).id
    await platform.host.stop()
    expect(await get(other)).toMatch(/^HTTP\/1\.1 503 [\s\S]*wrenn-error-code: host_unavailable/)
    await platform.host.start()
  })

  it('is on another domain than this platform has', async () => {
    const foreign = ask().replace('.localhost', '.sbx.example')
    expect(await exchange(platform, foreign)).toMatch(/^HTTP\/1\.1 404 [\s\S]*WRENN_PROXY_DOMAIN/)
  })
})

describe('a capsule that sleeps and wakes when it is used', () => {
  it('is resumed once by a storm, and every request of it is answered', { timeout: 120_000 }, async () => {
    await platform.call('PATCH', `/v1/capsules/${id}`, { auto_resume: true })
    await post('/pause')
    const answers = await Promise.all(Array.from({ length: 200 }, () => get()))
    expect(answers.filter((answer) => !answer.endsWith('hello')).map((answer) => answer.slice(0, 300))).toEqual([])
    const db = openDatabase({ url: platform.databaseUrl })
    const operations = db
      .selectFrom('operations')
      .select('kind')
      .where('capsule_id', '=', id)
      .where('kind', '=', 'resume')
    expect(await operations.execute()).toHaveLength(1)
    await db.destroy()
  })

  it('is kept awake by a request that is under way', async () => {
    await using slow = await serve((_request, response) => void response.write('open'))
    await platform.call('PATCH', `/v1/capsules/${id}`, { timeout_sec: 1 })
    const socket = dial(platform)
    socket.write(ask(id, slow.port))
    await readUntil(socket, /open/)
    await expect.poll(async () => (await platform.get(id)).awake_because, { timeout: 20_000 }).toContain('stream')
    socket.destroy()
    await platform.until(id, 'paused')
  })
})

describe('what was known of a capsule', () => {
  it('is never believed after it was paused, resumed, rolled back, forked or destroyed', async () => {
    const keep = async (): Promise<void> => {
      // Leaves a connection behind for the next request.
      expect(await get()).toContain('hello')
    }
    await keep()
    await post('/pause')
    expect(await get()).toMatch(/^HTTP\/1\.1 409 /)
    await post('/resume')
    await keep()
    const made = await json<Checkpoint>(await post('/checkpoints', { name: 'here' }), 201)
    expect(made).toMatchObject({ name: 'here' })
    await keep()
    const before = service.connections
    expect((await post(`/checkpoints/${made.id}/rollback`)).status).toBe(200)
    await keep()
    expect(service.connections).toBeGreaterThan(before)
    const { capsules } = await json<ForkResult>(await post('/fork', { count: 1 }), 201)
    const copy = capsules[0]?.id ?? ''
    const atFork = service.connections
    expect(await get(copy)).toContain('hello')
    expect(service.connections).toBe(atFork + 1)
    await platform.call('DELETE', `/v1/capsules/${id}`)
    expect(await get()).toMatch(/^HTTP\/1\.1 410 /)
    expect(await get(copy)).toContain('hello')
    await platform.call('DELETE', `/v1/capsules/${copy}`)
  })

  it('breaks off what is under way when its guest ends', async () => {
    await using slow = await serve((_request, response) => void response.write('open'))
    slow.server.on('upgrade', (_request, socket) => {
      socket.on('error', () => {})
      socket.once('end', () => socket.end())
      socket.resume()
      socket.write('HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nopen')
    })
    const sockets = [ask(id, slow.port), ask(id, slow.port).replace('close', 'Upgrade\r\nUpgrade: x')].map((text) => {
      const socket = dial(platform)
      socket.write(text)
      return socket
    })
    await Promise.all(sockets.map((socket) => readUntil(socket, /open/)))
    const ends = sockets.map((socket) => readAll(socket))
    await platform.call('DELETE', `/v1/capsules/${id}`)
    expect((await Promise.all(ends))[0]).toBe('<broken off>')
    for (const socket of sockets) socket.destroy()
  })
})
