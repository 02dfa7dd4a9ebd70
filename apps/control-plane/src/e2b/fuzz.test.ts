import type { Capsule } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from '../testing/harness.js'

let platform: Platform
let capsule: Capsule

beforeAll(async () => {
  platform = await startPlatform()
  capsule = await platform.create({ auto_resume: true })
}, 180_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
}, 30_000)

/** These routes are not in the document, by which others are tried. */
const routes = [
  'GET /sandboxes?metadata',
  'GET /v2/sandboxes?metadata,state,template,startedAfter,order,limit,nextToken',
  'POST /sandboxes templateID,timeout,metadata,envVars,network,autoResume,volumeMounts,mcp',
  'POST /v2/sandboxes templateID,timeout,metadata,envVars,network,autoResume,volumeMounts,mcp',
  'GET /sandboxes/{id}',
  'DELETE /sandboxes/{x}',
  'GET /sandboxes/{id}/metrics?start,end',
  'GET /sandboxes/{x}/logs',
  'GET /sandboxes/{id}/logs?start,limit',
  'GET /v2/sandboxes/{id}/logs?cursor,limit,direction,level,search',
  'POST /sandboxes/{id}/connect timeout,memory',
  'POST /v2/sandboxes/{id}/connect timeout,memory',
  'POST /sandboxes/{id}/resume timeout,autoPause',
  'POST /sandboxes/{id}/timeout timeout',
  'POST /sandboxes/{id}/refreshes duration',
  'POST /sandboxes/{id}/fork timeout,count',
  'POST /sandboxes/{id}/pause memory',
  'POST /sandboxes/{id}/snapshots name',
  'PUT /sandboxes/{id}/network allowOut,denyOut,allow_internet_access,rules',
  'GET /snapshots?sandboxID,name,limit,nextToken',
  'GET /templates/aliases/{x}',
  'DELETE /templates/{x}',
  'GET /teams',
  'POST /v3/templates name,alias,tags,cpuCount,memoryMB,minFreeDiskMb,teamID',
  'POST /v2/templates alias,cpuCount,memoryMB',
  'PATCH /v2/templates/{x} public',
  'GET /templates/{x}/files',
  'GET /templates/{x}/files/x',
  'GET /templates/x/files/{x}',
  'POST /v2/templates/{x}/builds/x fromImage,fromTemplate,fromImageRegistry,steps,startCmd,readyCmd,force',
  'POST /v2/templates/x/builds/{x} fromImage',
  'GET /templates/{x}/builds/x/status',
  'GET /templates/x/builds/{x}/status?logsOffset,limit,level',
  'PUT /v3/template-files/{x}/x?expires,signature',
  'PUT /v3/template-files/x/{x}?expires,signature',
  'GET /secrets?limit,nextToken',
  'POST /secrets name,value,metadata',
  'GET /secrets/{x}',
  'POST /secrets/{x} value,metadata',
  'DELETE /secrets/{x}',
  'GET /volumes/{x}',
]

const oddTexts = [
  '',
  '\0',
  'a\0b',
  'a=%00',
  '%',
  'x'.repeat(5_000),
  '-1',
  '1e999',
  'NaN',
  '\u{1f4a5}',
  '__proto__',
  '../..',
  ':',
  '/',
]
const oddValues = [
  ...oddTexts,
  '\ud800',
  null,
  true,
  -1,
  1.5,
  2 ** 53,
  1e308,
  [],
  {},
  ['\0'],
  { '\0': '\0' },
  { a: { b: [] } },
]

/** A lone surrogate cannot be in a URL. */
const part = (text: string): string => encodeURIComponent(text) || '%20'

interface Call {
  readonly method: string
  readonly path: string
  readonly body?: object
}

function callsOf(route: string): Call[] {
  const [, method = '', path = '', query, fields] = /^(\S+) ([^?\s]+)(?:\?(\S+))?(?: (\S+))?$/.exec(route) ?? []
  const whole = path.replace('{id}', capsule.id).replace('{x}', 'x')
  const placed = /\{(?:id|x)\}/.test(path)
    ? oddTexts.map((text) => ({ method, path: path.replace(/\{(?:id|x)\}/, part(text)) }))
    : []
  const asked = (query?.split(',') ?? []).flatMap((name) =>
    oddTexts.map((text) => ({ method, path: `${whole}?${name}=${part(text)}` })),
  )
  const said = (fields?.split(',') ?? []).flatMap((name) =>
    oddValues.map((value) => ({ method, path: whole, body: { templateID: 'base', [name]: value } })),
  )
  const alone = (fields?.split(',') ?? []).flatMap((name) =>
    oddValues.map((value) => ({ method, path: whole, body: { [name]: value } })),
  )
  return [...placed, ...asked, ...(path.endsWith('/sandboxes') ? said : alone)]
}

/** What a step of a build may be. */
const oddSteps = oddValues.flatMap((value) => [
  { type: value, args: ['x'] },
  ...['RUN', 'COPY', 'ENV', 'WORKDIR', 'USER'].flatMap((type) => [
    { type, args: value },
    { type, args: [value] },
    { type, args: ['a', value] },
    { type, args: ['a', 'b'], filesHash: value },
    { type, args: ['a', 'b'], force: value },
  ]),
])

/** Codes whose 5xx status is the right answer to such input. */
const documented = [501, 503]

describe('every route for clients made for E2B', () => {
  it.each(routes)('answers odd input with no 500: %s', { timeout: 120_000 }, async (route) => {
    for (const { method, path, body } of callsOf(route)) {
      const { status } = await platform.call(method, path, body)
      const isRight = status < 500 || documented.includes(status)
      expect(isRight, `${method} ${path.slice(0, 200)}: ${status} to ${JSON.stringify(body)?.slice(0, 200)}`).toBe(true)
    }
    // A create, or a fork, that was right after all.
    const left = await json<Capsule[]>(await platform.call('GET', '/v1/capsules'), 200)
    for (const { id } of left) if (id !== capsule.id) await platform.call('DELETE', `/v1/capsules/${id}`)
  })

  it('answers odd steps of a build with no 500', { timeout: 120_000 }, async () => {
    const statuses = new Set<number>()
    for (const step of oddSteps) {
      const { templateID, buildID } = await json<{ templateID: string; buildID: string }>(
        await platform.call('POST', '/v3/templates', { name: 'odd' }),
        202,
      )
      const path = `/v2/templates/${templateID}/builds/${buildID}`
      const { status } = await platform.call('POST', path, { fromImage: 'e2bdev/base', steps: [step] })
      expect(status, JSON.stringify(step).slice(0, 200)).toBeLessThan(500)
      statuses.add(status)
      await platform.call('DELETE', `/templates/${templateID}`)
    }
    expect([...statuses].sort()).toEqual([202, 400])
  })
})
