import { gzipSync } from 'node:zlib'
import { create, toBinary, toJsonString } from '@bufbuild/protobuf'
import type { AuditEntry, AuditPage, ListedTeam } from '@wrenn/protocol'
import { StartRequestSchema, type StartResponse, StartResponseSchema } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from '../store/database.js'
import { json, type Platform, startPlatform } from '../testing/harness.js'
import { bodyOf, type Service, serve } from '../testing/proxied.js'

const TOKEN = '0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0'
const asked = create(StartRequestSchema, {
  process: { cmd: '/bin/bash', args: ['-l', '-c', 'echo hi'], envs: { SECRET: 'very secret' } },
})
const answered = [
  create(StartResponseSchema, { event: { event: { case: 'start', value: { pid: 7 } } } }),
  create(StartResponseSchema, {
    event: { event: { case: 'data', value: { output: { case: 'stdout', value: Buffer.from('hi\n') } } } },
  }),
  create(StartResponseSchema, { event: { event: { case: 'end', value: { exitCode: 3, exited: true } } } }),
]

let platform: Platform
let agent: Service
let id: string
let bodies: string[] = []

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_TRUSTED_PROXIES: '127.0.0.1,::1' } })
  agent = await serve(async (request, response) => {
    bodies.push(await bodyOf(request))
    const type = request.headers['content-type'] ?? ''
    response.setHeader('content-type', type)
    if (request.url !== '/process.Process/Start') return void response.end('from the agent')
    for (const each of answered) response.write(envelope(encoded(type, each)))
    response.end()
  })
  platform.host.agentPort = agent.port
  const [team] = await json<ListedTeam[]>(await platform.call('GET', '/v1/teams'), 200)
  const on = await platform.call('PATCH', `/v1/teams/${team?.id}`, { audit_data_access: true })
  expect(on.status).toBe(204)
}, 60_000)
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})
beforeEach(async () => {
  id = (await platform.create()).id
  const db = openDatabase({ url: platform.databaseUrl })
  await db.updateTable('capsules').set({ access_token: TOKEN }).where('id', '=', id).execute()
  await db.destroy()
  bodies = []
})

function encoded(type: string, message: StartResponse): Uint8Array {
  const isJson = type.includes('json')
  return isJson ? Buffer.from(toJsonString(StartResponseSchema, message)) : toBinary(StartResponseSchema, message)
}

function envelope(message: Uint8Array, flags = 0): Buffer {
  const head = Buffer.alloc(5)
  head[0] = flags
  head.writeUInt32BE(message.length, 1)
  return Buffer.concat([head, message])
}

/** As clients of the E2B wire ask, on the origin that all capsules share. */
async function ask(
  method: string,
  path: string,
  more: { type?: string; body?: Uint8Array; key?: string; headers?: Record<string, string> } = {},
) {
  return await fetch(platform.url + path, {
    method,
    headers: {
      'e2b-sandbox-id': id,
      'e2b-sandbox-port': '49983',
      ...(more.key === undefined ? { 'x-access-token': TOKEN } : { 'x-api-key': more.key }),
      ...(more.type === undefined ? {} : { 'content-type': more.type }),
      ...more.headers,
    },
    ...(more.body === undefined ? {} : { body: new Uint8Array(more.body) }),
  })
}

async function noted(wanted: readonly string[]): Promise<AuditEntry[]> {
  const read = async () => {
    const page = await json<AuditPage>(await platform.call('GET', `/v1/audit-logs?resource_id=${id}`), 200)
    return page.items.reverse().filter(({ action }) => action !== 'capsule.create')
  }
  await expect.poll(async () => (await read()).map(({ action, outcome }) => `${action} ${outcome}`)).toEqual(wanted)
  return await read()
}

describe('what clients of the E2B wire do inside a capsule', () => {
  it.each([
    ['application/connect+proto', toBinary(StartRequestSchema, asked)],
    ['application/connect+json', Buffer.from(toJsonString(StartRequestSchema, asked))],
  ])('is noted with its command and end, as %s', async (type, message) => {
    const body = envelope(message)
    const answer = await ask('POST', '/process.Process/Start', { type, body })
    const passedOn = Buffer.from(await answer.arrayBuffer())
    expect(passedOn).toEqual(Buffer.concat(answered.map((each) => envelope(encoded(type, each)))))
    expect(bodies).toEqual([body.toString('latin1')])
    const [begun, ended] = await noted(['capsule.exec accepted', 'capsule.exec success'])
    const command = '["/bin/bash","-l","-c","echo hi"]'
    expect(begun).toMatchObject({ actor_type: 'token', ip: '127.0.0.1', details: { command, through: 'e2b' } })
    expect(ended?.details).toMatchObject({ command, exit_code: '3', output_bytes: '3', status: '200' })
    expect(JSON.stringify([begun, ended])).not.toContain('very secret')
  })

  const started = (message: Uint8Array) =>
    ask('POST', '/process.Process/Start', {
      type: 'application/connect+proto',
      body: envelope(gzipSync(message), 1),
      headers: { 'connect-content-encoding': 'gzip' },
    })

  it('is noted with its command where the request is packed', async () => {
    await (await started(toBinary(StartRequestSchema, asked))).arrayBuffer()
    const [begun] = await noted(['capsule.exec accepted', 'capsule.exec success'])
    expect(begun?.details).toEqual({ through: 'e2b', command: '["/bin/bash","-l","-c","echo hi"]' })
  })

  it('is noted without a command where the request is too long unpacked, and passed on all the same', async () => {
    const process = { cmd: '/bin/true', args: ['x'.repeat(2 ** 20)] }
    const message = create(StartRequestSchema, { process })
    const answer = await started(toBinary(StartRequestSchema, message))
    expect((await answer.arrayBuffer()).byteLength).toBeGreaterThan(0)
    const [begun] = await noted(['capsule.exec accepted', 'capsule.exec success'])
    expect(begun?.details).toEqual({ through: 'e2b', unreadable: 'true' })
  })

  it('is noted with where it came from, as a trusted proxy says it', async () => {
    await (await ask('GET', '/files?path=/root/a', { headers: { 'x-forwarded-for': '203.0.113.9' } })).text()
    const [read] = await noted(['capsule.read_file success'])
    expect(read?.ip).toBe('203.0.113.9')
  })

  it('is noted without a command where the request is none, and passed on all the same', async () => {
    await (
      await ask('POST', '/process.Process/Start', {
        type: 'application/connect+proto',
        body: envelope(Buffer.from([255])),
      })
    ).text()
    const [begun, ended] = await noted(['capsule.exec accepted', 'capsule.exec success'])
    expect(begun?.details).toEqual({ through: 'e2b', unreadable: 'true' })
    expect(ended?.details.exit_code).toBe('3')
  })

  it('is noted of files by their paths and bytes, and who the key is of', async () => {
    expect(await (await ask('GET', '/files?path=/root/a&username=root', { key: platform.key })).text()).toBe(
      'from the agent',
    )
    await (
      await ask('POST', '/files?path=/root/b', { body: Buffer.from('12345'), type: 'application/octet-stream' })
    ).text()
    await (
      await ask('POST', '/filesystem.Filesystem/Stat', { body: Buffer.from('{"path":"/c"}'), type: 'application/json' })
    ).text()
    await (await ask('GET', '/health')).text()
    const entries = await noted([
      'capsule.read_file success',
      'capsule.write_file success',
      'capsule.stat_file success',
    ])
    expect(entries[0]).toMatchObject({ actor_type: 'key', details: { path: '/root/a', user: 'root', bytes: '14' } })
    expect(entries[1]).toMatchObject({ actor_type: 'token', details: { path: '/root/b', bytes: '5' } })
    expect(bodies[1]).toBe('12345')
  })
})
