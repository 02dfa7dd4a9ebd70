import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeServer, KEY, sendJson } from './fake-server.fixture.js'
import { imageFileRecipe, imageRecipe, type Recipe, Wrenn } from './index.js'

const ID = `bld-${'0'.repeat(25)}`
const at = '2026-01-02T03:04:05.000Z'
const hash = 'a'.repeat(64)
const recipe: Recipe = {
  stages: [{ from: 'base', steps: [{ type: 'COPY', args: ['.', '/'], filesHash: hash }] }],
  entrypoint: ['serve'],
  command: ['all'],
  uploads: [{ hash, open: () => new Blob(['tar']).stream() }],
}
let server: FakeServer
let wrenn: Wrenn
let state = 'building'
let isPresent = false

const build = () => ({
  ...{ id: ID, name: 'web', tags: [], state, log_lines: 1, steps: 4, cached_steps: 3, created_at: at },
  by: { type: 'user', id: 'user-1', name: 'Ada' },
  ...(state === 'building' ? {} : { ended_at: at }),
  ...(state === 'error' ? { reason: { message: 'no luck', step: '1' } } : {}),
})

beforeEach(async () => {
  state = 'ready'
  isPresent = false
  server = await new FakeServer().start()
  server.handler = ({ path, method }, response) => {
    if (method === 'PUT') return response.writeHead(200).end()
    if (path.includes('/files/')) {
      return sendJson(response, { present: isPresent, upload_url: 'http://elsewhere/v3/template-files/t/h?x=1' })
    }
    if (path.includes('/log?from=0')) {
      return sendJson(response, { build: build(), lines: [{ at, level: 'info', step: '1', message: 'hi' }], next: 1 })
    }
    if (path.includes('/log')) return sendJson(response, { build: build(), lines: [], next: 1 })
    if (path.endsWith('/cancel')) state = 'cancelled'
    return sendJson(response, path.startsWith('/v1/templates/builds?name=web') ? [build()] : build(), 200)
  }
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})
const asked = (): string[] => server.seen.map(({ method, path }) => `${method} ${path.replace(ID, 'ID')}`)

describe('a build', () => {
  it('is begun, given its files, started and followed to its end', async () => {
    const said: string[] = []
    const made = await wrenn.templates.build('web', recipe, {
      onLine: ({ message }) => said.push(message),
      noCache: true,
    })
    expect([made.state, made.endedAt, said]).toEqual(['ready', new Date(at), ['hi']])
    expect(asked()).toEqual([
      'POST /v1/templates/builds',
      `GET /v1/templates/builds/ID/files/${hash}`,
      'PUT /v3/template-files/t/h?x=1',
      'POST /v1/templates/builds/ID/start',
      'GET /v1/templates/builds/ID/log?from=0&wait_sec=20',
      'GET /v1/templates/builds/ID/log?from=1&wait_sec=20',
      'GET /v1/templates/builds/ID',
    ])
    expect(server.seen[2]?.body).toBe('tar')
    expect(JSON.parse(server.seen[3]?.body ?? '')).toEqual({
      stages: [{ from: 'base', steps: [{ type: 'COPY', args: ['.', '/'], files_hash: hash }] }],
      ...{ entrypoint: ['serve'], command: ['all'], no_cache: true },
    })
  })

  it('of an image as a file sends it, and says which stage begins with it', async () => {
    const file = { hash, open: () => new Blob(['image']).stream() }
    await wrenn.templates.startBuild('web', imageFileRecipe(file, { image: 'app:2', called: 'app.tar' }))
    expect(server.seen[2]?.body).toBe('image')
    expect(JSON.parse(server.seen[3]?.body ?? '')).toEqual({
      stages: [{ from: 'app.tar', steps: [] }],
      image_files: { 'app.tar': { files_hash: hash, image: 'app:2' } },
    })
    expect(imageFileRecipe(file)).toMatchObject({ imageFiles: { 'image file': { hash } } })
  })

  it('of an image of a registry begins with it, and sends nothing', async () => {
    await wrenn.templates.startBuild('web', imageRecipe('ghcr.io/team/app:2'))
    expect(asked()).toEqual(['POST /v1/templates/builds', 'POST /v1/templates/builds/ID/start'])
    expect(JSON.parse(server.seen[1]?.body ?? '')).toEqual({ stages: [{ from: 'ghcr.io/team/app:2', steps: [] }] })
  })

  it('sends a Blob with its length, and again when the connection breaks', async () => {
    const { handler } = server
    let isBroken = false
    server.handler = (request, response) => {
      if (request.method !== 'PUT' || isBroken) return handler(request, response)
      isBroken = true
      response.destroy()
    }
    await wrenn.templates.startBuild('web', imageFileRecipe({ hash, open: () => new Blob(['image']) }))
    const sent = server.seen.filter(({ method }) => method === 'PUT')
    expect(sent.map(({ body, headers }) => [body, headers['content-length']])).toEqual([
      ['image', '5'],
      ['image', '5'],
    ])
  })

  it('of an archive is made as a build is, and an archive is given as it comes', async () => {
    const file = { hash, open: () => new Blob(['archive']).stream() }
    expect((await wrenn.templates.import('web', file)).state).toBe('ready')
    expect(JSON.parse(server.seen[3]?.body ?? '')).toMatchObject({ image_files: { archive: { files_hash: hash } } })
    server.handler = (_, response) => response.writeHead(200).end('the bytes')
    expect(await new Response(await wrenn.templates.export('web:v2')).text()).toBe('the bytes')
    expect(asked().at(-1)).toBe('GET /v1/snapshots/web%3Av2/archive')
  })

  it('of an archive may be saved by the browser, with a session that is fresh', async () => {
    const page = new Wrenn({ apiUrl: server.url, cookies: true })
    const url = `${server.url}/v1/snapshots/web%3Av2/archive`
    expect([await page.templates.exportUrl('web:v2'), await page.templates.exportUrl('web:v2')]).toEqual([url, url])
    expect(asked()).toEqual(['POST /v1/auth/refresh'])
    expect(await wrenn.templates.exportUrl('web:v2')).toBe(url)
    expect(asked()).toHaveLength(1)
  })

  it('does not send what is there', async () => {
    isPresent = true
    await wrenn.templates.startBuild('web', recipe)
    expect(asked().some((call) => call.startsWith('PUT'))).toBe(false)
  })

  it('says why its files could not be read, not that nobody answers, and is cancelled once', async () => {
    class Torn {
      readonly hash = hash
      readonly reason = new Error('a.c changed')
      open(): ReadableStream<Uint8Array> {
        const { reason } = this
        return new ReadableStream({
          pull: (controller) => {
            if (controller.desiredSize === null) return
            controller.enqueue(new Uint8Array([1]))
            controller.error(reason)
          },
        })
      }
    }
    const built = wrenn.templates.build('web', { ...recipe, uploads: [new Torn()] })
    await expect(built).rejects.toThrow('a.c changed')
    expect(asked().filter((call) => call.endsWith('/cancel'))).toHaveLength(1)
    expect(asked().some((call) => call.endsWith('/start'))).toBe(false)
  })

  it('that fails says why, and where', async () => {
    state = 'error'
    await expect(wrenn.templates.build('web', { ...recipe, uploads: [] })).rejects.toMatchObject({
      ...{ code: 'build_failed', message: 'no luck' },
      details: { buildId: ID, step: '1' },
    })
  })

  it('is cancelled when its caller gives up, and by itself', async () => {
    const abort = new AbortController()
    const onLine = () => abort.abort(new Error('enough'))
    state = 'building'
    await expect(wrenn.templates.build('web', recipe, { onLine, signal: abort.signal })).rejects.toThrow('enough')
    expect(asked().filter((call) => call.endsWith('/cancel'))).toEqual(['POST /v1/templates/builds/ID/cancel'])
    expect((await wrenn.templates.cancelBuild(ID)).state).toBe('cancelled')
  })

  it('under way ends with its template, which need not be there yet', async () => {
    const { handler } = server
    server.handler = (request, response) => {
      if (request.method !== 'DELETE') return handler(request, response)
      const error = { code: 'template_not_found', message: 'There is none.', requestId: 'r' }
      return sendJson(response, { error }, 404)
    }
    await expect(wrenn.templates.delete('web', { cancelBuilds: true })).rejects.toThrow('There is none.')
    state = 'building'
    await wrenn.templates.delete('web', { cancelBuilds: true })
    expect(asked().slice(2)).toEqual([
      'GET /v1/templates/builds?name=web&limit=200',
      'POST /v1/templates/builds/ID/cancel',
      'DELETE /v1/snapshots/web',
    ])
  })

  it('is listed and looked at', async () => {
    expect((await wrenn.templates.listBuilds({ name: 'web' })).map(({ id }) => id)).toEqual([ID])
    expect(await wrenn.templates.getBuild(ID)).toMatchObject({
      ...{ name: 'web', createdAt: new Date(at), steps: 4, cachedSteps: 3, logLines: 1 },
      by: { type: 'user', id: 'user-1', name: 'Ada' },
    })
  })

  it('of many is listed page after page', async () => {
    const ids = Array.from({ length: 60 }, (_, at) => `bld-${String(at).padStart(25, '0')}`)
    server.handler = ({ path }, response) => {
      const { searchParams } = new URL(path, 'http://wrenn')
      const first = ids.indexOf(searchParams.get('before') ?? '') + 1
      const page = ids.slice(first, first + Number(searchParams.get('limit')))
      return sendJson(
        response,
        page.map((id) => ({ ...build(), id })),
      )
    }
    const found: string[] = []
    for await (const { id } of wrenn.templates.builds({ name: 'web', state: 'open' })) found.push(id)
    expect(found).toEqual(ids)
    expect(asked()).toEqual([
      'GET /v1/templates/builds?name=web&state=open&limit=50',
      `GET /v1/templates/builds?name=web&state=open&before=${ids[49]}&limit=50`,
    ])
  })
})
