import { request as httpRequest } from 'node:http'
import type { Capsule } from '@wrenn/protocol'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform
let capsule: Capsule
let routes: { readonly method: string; readonly path: string; readonly fields: readonly string[] }[]

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_MAX_CAPSULES: '2' } })
  // Awake again for the next call, whatever the one before did.
  capsule = await platform.create({ auto_resume: true })
  const document = await json<OpenApi>(await fetch(`${platform.url}/openapi.json`), 200)
  routes = Object.entries(document.paths)
    .flatMap(([path, item]) =>
      Object.entries(item).map(([method, { requestBody }]) => {
        const schema = requestBody?.content['application/json']?.schema
        const named = document.components.schemas[schema?.$ref?.split('/').at(-1) ?? ''] ?? schema
        return { method: method.toUpperCase(), path, fields: Object.keys(named?.properties ?? {}) }
      }),
    )
    // Right answers of these to anything: the capsule must live on.
    .filter(({ method, path }) => !(method === 'DELETE' && path === '/v1/capsules/{id}'))
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

interface Schema {
  readonly $ref?: string
  readonly properties?: Readonly<Record<string, object>>
}
interface OpenApi {
  readonly paths: Record<
    string,
    Record<string, { readonly requestBody?: { readonly content: Record<string, { readonly schema?: Schema }> } }>
  >
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> }
}

/** A lone surrogate cannot be in a URL. */
const wellFormed = (text: string): string => Buffer.from(text.slice(0, 2_000)).toString()

const ANSWER_WITHIN_MS = 15_000
/** Statuses from 500 on that are the right answer to such input; 501: this platform has no object store. */
const documented = [501, 502, 503, 504, 507]

/** Raw HTTP, so that headers and bodies can be as wrong as they like. */
function send(
  method: string,
  path: string,
  headers: Record<string, string>,
  body: Buffer | undefined,
): Promise<number> {
  const url = new URL(platform.url)
  return new Promise((resolve, reject) => {
    const sized = body === undefined ? headers : { ...headers, 'content-length': String(body.length) }
    const call = httpRequest(
      { host: url.hostname, port: url.port, method, path, headers: sized, agent: false },
      (answer) => {
        // Events have no end.
        if (answer.headers['content-type']?.startsWith('text/event-stream')) answer.destroy()
        else answer.resume()
        answer.once('close', () => resolve(answer.statusCode ?? 0))
      },
    )
    call.setTimeout(ANSWER_WITHIN_MS, () => call.destroy(new Error(`no answer: ${method} ${path}`)))
    call.once('error', (error) => ('code' in error && error.code === 'ECONNRESET' ? resolve(400) : reject(error)))
    call.end(body)
  })
}

const strangeText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom(
    '',
    '\0',
    'a\0b',
    '../../../etc/passwd',
    '-1',
    'NaN',
    '1e999',
    '%00',
    "'; DROP TABLE capsules; --",
    '\ud800',
    '💥',
    '__proto__',
  ),
  fc.constant('x'.repeat(70_000)),
)
const strangeValue: fc.Arbitrary<unknown> = fc.oneof(
  { maxDepth: 3 },
  strangeText,
  fc.constantFrom(null, true, false, -1, 0, 1.5, 2 ** 31, 2 ** 53, -(2 ** 63), 1e308, [], {}),
  fc.array(strangeText, { maxLength: 3 }),
  fc.dictionary(strangeText, strangeText, { maxKeys: 3 }),
)
/** Of fields that the route has, so that they are looked at, and now and then of one that it has not. */
function jsonBody(fields: readonly string[]): fc.Arbitrary<Buffer> {
  const field = fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom(...(fields.length === 0 ? ['path'] : fields)) },
    strangeText,
  )
  const strangeObject = fc.dictionary(field, strangeValue, { maxKeys: 6 })
  return fc.oneof(strangeObject, strangeValue).map((value) => Buffer.from(JSON.stringify(value) ?? ''))
}
const brokenBody = fc.oneof(
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  fc
    .constantFrom(
      '{',
      '[[[[',
      '{"a":}',
      '{"__proto__":{"x":1}}',
      'null',
      '"text"',
      `${'['.repeat(50_000)}${']'.repeat(50_000)}`,
    )
    .map((text) => Buffer.from(text)),
)
const contentType = fc.constantFrom(
  'application/json',
  'text/plain',
  'application/xml',
  'multipart/form-data',
  'multipart/form-data; boundary=x',
  'application/octet-stream',
  '',
  'nonsense',
)

/** The counterexample itself can be longer than any log keeps; what failed and how to run it again are not. */
async function reportBriefly<Value>({ failed, seed, counterexamplePath, errorInstance }: fc.RunDetails<Value>) {
  if (!failed) return
  const again = `fc.assert options: { seed: ${seed}, path: '${counterexamplePath}', endOnFailure: true }`
  throw new Error(`${String(errorInstance).slice(0, 1_500)}\n${again}`, { cause: errorInstance })
}

describe('every route of the document', () => {
  it('answers wrong input with a 4xx and a code, never with a 500 and never not at all', async () => {
    const callOf = (route: (typeof routes)[number]) =>
      fc.record({
        route: fc.constant(route),
        id: fc.oneof({ weight: 3, arbitrary: fc.constant(capsule.id) }, { weight: 1, arbitrary: strangeText }),
        selector: fc.oneof(strangeText, fc.constantFrom('checkpoint-1', 'current', 'minimal')),
        query: fc.dictionary(
          fc.constantFrom(
            'limit',
            'cursor',
            'status',
            'label',
            'range',
            'path',
            'user',
            'signal',
            'wait_sec',
            'type',
            'from_offset',
            'template',
          ),
          strangeText,
          { maxKeys: 3 },
        ),
        type: fc.oneof(
          { weight: 4, arbitrary: fc.constant('application/json') },
          { weight: 1, arbitrary: contentType },
        ),
        key: fc.constantFrom('', 'a b', 'é', 'x'.repeat(300), 'same'),
        range: fc.constantFrom(
          '',
          'bytes=0-',
          'bytes=-0',
          'bytes=5-1',
          'bytes=a-b',
          'lines=1-2',
          'bytes=99999999999999999999-',
        ),
        body: fc.oneof(
          { weight: 3, arbitrary: jsonBody(route.fields) },
          { weight: 1, arbitrary: brokenBody },
          { weight: 1, arbitrary: fc.constant(undefined) },
        ),
      })
    const call = fc.constantFrom(...routes).chain(callOf)
    await fc.assert(
      fc.asyncProperty(call, async ({ route, id, selector, query, type, key, range, body }) => {
        const part = (text: string): string => encodeURIComponent(wellFormed(text)) || '%20'
        const search = new URLSearchParams(
          Object.entries(query).map(([name, text]): [string, string] => [name, wellFormed(text)]),
        )
        const path = `${route.path.replace('{id}', part(id)).replaceAll(/\{(?:selector|cid|name|a|b)\}/g, () => part(selector))}?${search}`
        const headers = {
          'x-api-key': platform.key,
          ...(type && { 'content-type': type }),
          ...(key && { 'idempotency-key': Buffer.from(key).toString('latin1') }),
          ...(range && { range }),
        }
        const status = await send(route.method, path, headers, route.method === 'HEAD' ? undefined : body)
        expect(
          status >= 200 && (status < 500 || documented.includes(status)),
          `${route.method} ${path.slice(0, 300)}: ${status} to ${body?.subarray(0, 200)}`,
        ).toBe(true)
      }),
      { numRuns: 4_000, interruptAfterTimeLimit: 60_000, asyncReporter: reportBriefly },
    )
    // Pauses among the calls are right; a resume of what is awake already is a 409.
    await platform.call('POST', `/v1/capsules/${capsule.id}/resume`)
    expect((await platform.get(capsule.id)).state).toBe('running')
  }, 90_000)

  it('refuses a body that is too large, a form without a boundary, and a URL that cannot be decoded', async () => {
    const headers = { 'x-api-key': platform.key, 'content-type': 'application/json' }
    const huge = Buffer.from(`{"name":"${'x'.repeat(9_000_000)}"}`)
    expect(await send('POST', '/v1/capsules', headers, huge)).toBe(413)
    const form = { ...headers, 'content-type': 'multipart/form-data' }
    expect(await send('POST', `/v1/capsules/${capsule.id}/files/write`, form, Buffer.from('{}'))).toBe(400)
    expect(await send('GET', '/v1/capsules/%', headers, undefined)).toBe(400)
    expect(await send('PATCH', '/v1/capsules', headers, undefined)).toBe(405)
    expect(await send('GET', '/v2/nothing', headers, undefined)).toBe(404)
  })
})
