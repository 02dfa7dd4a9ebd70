import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LagoServer } from '@wrenn/testkit'
import { afterEach, describe, expect, it } from 'vitest'
import { judgeLago, LagoClient, type LagoInput } from './client.js'

const KEY = 'lago-secret-key'
const never = new AbortController().signal
const cleanUps: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp()
})

const event = (id: string): LagoInput => ({
  ...{ transaction_id: id, external_subscription_id: 'team-1', code: 'wrenn_vcpu_seconds' },
  ...{ timestamp: 1_796_083_199, properties: { value: '1.5', date: '2026-11-30' } },
})
const clientOf = (url: string, config: object = {}, timeoutMs?: number): LagoClient =>
  new LagoClient({ url, apiKey: KEY, apiKeyFile: undefined, from: undefined, ...config }, timeoutMs)
const lagoServer = async (): Promise<LagoServer> => {
  const server = await LagoServer.start({ apiKey: KEY, codes: ['wrenn_vcpu_seconds'] })
  cleanUps.push(() => server[Symbol.asyncDispose]())
  return server
}
const serving = async (listener: RequestListener): Promise<string> => {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanUps.push(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}` // of a server that listens on a port
}

describe('a client of Lago', () => {
  it('has events taken, and hears which ones it has had before', async () => {
    const lago = await lagoServer()
    const client = clientOf(lago.origin)
    expect(await client.send([event('a'), event('b')], never)).toEqual({ kind: 'taken' })
    const again = await client.send([event('c'), event('b')], never)
    expect(again).toEqual({ kind: 'faulty', known: [1], refused: new Map() })
    expect(lago.rules.size).toBe(2)
    expect(lago.rules.total('team-1', 'wrenn_vcpu_seconds')).toBe(3_000_000n)
    expect(lago.rules.ignored).toBe(0)
  })

  it('hears why single ones are refused, in both forms', async () => {
    const lago = await lagoServer()
    lago.rules.expression = ({ transaction_id: id }) => (id === 'a' ? 'Variable: gpu not found' : undefined)
    const sent = await clientOf(lago.origin).send([event('a'), event('b'), event('')], never)
    expect(sent).toEqual({
      kind: 'faulty',
      known: [],
      refused: new Map([
        [0, 'Lago refuses it: Variable: gpu not found'],
        [2, 'Lago refuses it: {"transaction_id":["value_is_mandatory"]}'],
      ]),
    })
    expect(lago.rules.size).toBe(0)
  })

  it('never tells the key, and gives it to no other address', async () => {
    const seen: (string | undefined)[] = []
    const other = await serving((request, response) => {
      seen.push(request.headers.authorization)
      response.end('{}')
    })
    const echo = await serving((request, response) =>
      response.writeHead(307, { location: other }).end(`moved, ${request.headers.authorization}`),
    )
    const sent = await clientOf(echo).send([event('a')], never)
    expect(sent).toMatchObject({ kind: 'later', reason: 'Lago answered 307: moved, Bearer ***' })
    expect(seen).toEqual([])
    const lago = await lagoServer()
    const refused = await clientOf(lago.origin, { apiKey: 'another' }).send([event('a')], never)
    expect(refused).toEqual({
      kind: 'later',
      reason: 'Lago answered 401: Unauthorized',
      isRate: false,
      afterMs: undefined,
    })
  })

  it('reads a key of a file anew each time, and says when it has none', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-lago-'))
    cleanUps.push(() => rm(dir, { recursive: true, force: true }))
    const apiKeyFile = join(dir, 'key')
    const lago = await lagoServer()
    const client = clientOf(lago.origin, { apiKey: undefined, apiKeyFile })
    expect(await client.send([event('a')], never)).toMatchObject({
      kind: 'later',
      reason: expect.stringMatching(/^The file of WRENN_LAGO_API_KEY_FILE cannot be read: ENOENT/),
    })
    await writeFile(apiKeyFile, 'two lines\nof it\n')
    const none = await client.send([event('a')], never)
    expect(none).toMatchObject({ reason: 'The file of WRENN_LAGO_API_KEY_FILE has no key in it.' })
    await writeFile(apiKeyFile, `${KEY}\n`)
    expect(await client.send([event('a')], never)).toEqual({ kind: 'taken' })
  })

  it('ends when Lago is silent, cuts the connection, or is not there', async () => {
    const silent = await serving(() => {})
    const late = await clientOf(silent, {}, 100).send([event('a')], never)
    expect(late).toMatchObject({ kind: 'later', reason: 'Lago did not answer within 0.1 s.' })
    const dripping = await serving((_request, response) => void response.writeHead(200).write('{'))
    expect(await clientOf(dripping, {}, 100).send([event('a')], never)).toMatchObject({ kind: 'later' })
    const lago = await lagoServer()
    lago.faults.push('cut before')
    const cut = await clientOf(lago.origin).send([event('a')], never)
    expect(cut).toMatchObject({ kind: 'later', isRate: false })
    const { origin } = lago
    await lago[Symbol.asyncDispose]()
    const gone = await clientOf(origin).send([event('a')], never)
    expect(gone).toMatchObject({ kind: 'later', reason: expect.stringContaining('ECONNREFUSED') })
  })
})

describe('an answer of Lago', () => {
  const details = (error_details: unknown) =>
    JSON.stringify({ status: 422, error: 'Unprocessable Entity', error_details })
  it.each([
    [200, {}, '', { kind: 'taken' }],
    [429, { 'retry-after': '7' }, '', { kind: 'later', isRate: true, afterMs: 7_000 }],
    [429, { 'x-ratelimit-reset': '3' }, '', { kind: 'later', isRate: true, afterMs: 3_000 }],
    [429, { 'x-ratelimit-reset': 'soon' }, '', { kind: 'later', isRate: true, afterMs: undefined }],
    [503, { 'retry-after': '2' }, '', { kind: 'later', isRate: true, afterMs: 2_000 }],
    [503, {}, '<html>', { kind: 'later', isRate: false, reason: 'Lago answered 503: <html>' }],
    [
      500,
      {},
      '{"status":500,"error":"Internal Error"}',
      { kind: 'later', reason: 'Lago answered 500: Internal Error' },
    ],
    [401, {}, '{"status":401,"error":"Unauthorized"}', { kind: 'later', reason: 'Lago answered 401: Unauthorized' }],
    [403, {}, '{"status":403,"error":"Forbidden","code":"event_write_required"}', { kind: 'later' }],
    [404, {}, '<html>', { kind: 'later', isRate: false }],
    [404, {}, '{"status":404,"error":"Not Found","code":"subscription_not_found"}', { kind: 'unclear' }],
    [400, {}, '', { kind: 'unclear', reason: 'Lago answered 400.' }],
    [413, {}, '<html>', { kind: 'unclear' }],
    [422, {}, details({ events: ['too_many_events'] }), { kind: 'unclear' }],
    [422, {}, details({ 5: { code: ['value_is_mandatory'] } }), { kind: 'unclear' }],
    [422, {}, details(['value_already_exist']), { kind: 'unclear' }],
    [422, {}, details({ 1: { transaction_id: ['value_already_exist'] } }), { kind: 'faulty', known: [1] }],
    [422, {}, details({ 0: { transaction_id: ['value_already_exist'], code: ['x'] } }), { kind: 'faulty', known: [] }],
    [422, {}, details({ 0: { transaction_id: ['value_already_exist', 'x'] } }), { kind: 'faulty', known: [] }],
    [422, {}, details({ 0: null }), { kind: 'faulty', known: [] }],
  ] as const)('of %s with %j and %s means what it says', (status, headers, body, verdict) => {
    expect(judgeLago(status, new Headers(headers), body, 2)).toMatchObject(verdict)
  })
})
