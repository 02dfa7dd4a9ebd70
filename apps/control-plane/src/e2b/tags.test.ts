import { silentLogger, waitFor } from '@wrenn/base'
import type { AuditPage } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from '../store/database.js'
import { json, type Platform, startPlatform } from '../testing/harness.js'

interface Tag {
  readonly tag: string
  readonly buildID: string
  readonly createdAt: string
}

let platform: Platform
let db: Db

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_BUILD_CACHE_RESULTS: '0' } })
  db = openDatabase({ url: platform.databaseUrl, logger: silentLogger })
}, 180_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
}, 30_000)

let count = 0
const newName = (): string => `tagged-${count++}`
const post = (path: string, body: object) => platform.call('POST', path, body)

/** Builds a template that has `content` in a file. @returns the build's id */
async function build(name: string, content: string, body: object = {}): Promise<string> {
  const begun = await json<{ buildID: string; templateID: string }>(await post('/v3/templates', { name, ...body }), 202)
  const { templateID, buildID } = begun
  const path = `/v2/templates/${templateID}/builds/${buildID}`
  const steps = [
    { type: 'USER', args: ['root'] },
    { type: 'WORKDIR', args: ['/app'] },
    { type: 'RUN', args: [`echo ${content} > content`] },
  ]
  expect((await post(path, { fromImage: 'e2bdev/base', steps })).status).toBe(202)
  await waitFor(
    async () => {
      const path = `/templates/${templateID}/builds/${buildID}/status`
      const { status, reason } = await json<{ status: string; reason?: object }>(await platform.call('GET', path), 200)
      if (status === 'error') throw new Error(JSON.stringify(reason))
      return status === 'ready' || undefined
    },
    { timeoutMs: 40_000, what: 'the build to be ready' },
  )
  return buildID
}

/** What a sandbox of it has, or the status of the refusal. */
async function contentOf(template: string): Promise<string> {
  const made = await post('/v2/sandboxes', { templateID: template })
  if (made.status !== 201) return `${made.status}`
  const { sandboxID: id } = await json<{ sandboxID: string }>(made, 201)
  try {
    return (await (await platform.call('GET', `/v1/capsules/${id}/files?path=/app/content`)).text()).trim()
  } finally {
    await platform.call('DELETE', `/v1/capsules/${id}`)
  }
}

const assign = (target: string, ...tags: string[]) => post('/templates/tags', { target, tags })
const remove = (name: string, ...tags: string[]) => platform.call('DELETE', '/templates/tags', { name, tags })
const tagsOf = async (name: string) => await json<Tag[]>(await platform.call('GET', `/templates/${name}/tags`), 200)
const namesOf = async (name: string) => (await tagsOf(name)).map(({ tag, buildID }) => `${tag} ${buildID}`)
const snapshots = async () =>
  (await db.selectFrom('snapshots').select('id').where('state', '=', 'ready').execute()).length
const refusal = async (response: Response) => [
  response.status,
  (await json<{ message: string }>(response, response.status)).message,
]

describe('tags of a template', () => {
  it('keep a build while the name goes on to the next, until they are taken away', async () => {
    const name = newName()
    const before = await snapshots()
    const first = await build(name, 'one')
    expect(await json(await assign(`${name}:default`, 'v1', 'stable'), 201)).toEqual({
      buildID: first,
      tags: ['v1', 'stable'],
    })
    const second = await build(name, 'two')
    expect(await namesOf(name)).toEqual([`default ${second}`, `stable ${first}`, `v1 ${first}`])
    for (const [template, content] of [
      [name, 'two'],
      [`${name}:default`, 'two'],
      [`team/${name}:v1`, 'one'],
      [`${name}:stable`, 'one'],
      [`${name}:v2`, '404'],
    ] as const)
      expect([template, await contentOf(template)]).toEqual([template, content])
    // Nobody keeps the one without a tag.
    expect(await build(name, 'three')).not.toBe(second)
    await expect.poll(snapshots).toBe(before + 2)
    expect((await remove(name, 'v1', 'stable', 'never')).status).toBe(204)
    await expect.poll(snapshots).toBe(before + 1)
    expect(await contentOf(`${name}:v1`)).toBe('404')
  })

  it('let a build be tried before the name stands for it, and the name go back', async () => {
    const name = newName()
    const first = await build(`${name}:v1`, 'one')
    // The first of a template is its default, too.
    expect(await namesOf(name)).toEqual([`default ${first}`, `v1 ${first}`])
    const second = await build(name, 'two', { tags: ['v2', 'next'] })
    expect([await contentOf(name), await contentOf(`${name}:next`)]).toEqual(['one', 'two'])
    expect((await assign(`${name}:v2`, 'default')).status).toBe(201)
    expect([await contentOf(name), await contentOf(`${name}:v1`)]).toEqual(['two', 'one'])
    expect((await assign(`${name}:v1`, 'default', 'next', 'next')).status).toBe(201)
    expect(await namesOf(name)).toEqual([`default ${first}`, `next ${first}`, `v1 ${first}`, `v2 ${second}`])
    expect(await contentOf(name)).toBe('one')
    const { items } = await json<AuditPage>(
      await platform.call('GET', `/v1/audit-logs?resource_type=template&resource_id=${name}`),
      200,
    )
    expect(items.filter(({ action }) => action === 'template.tag').map(({ details }) => details)).toMatchObject([
      { tags: 'default,next', build_id: first },
      { tags: 'default', build_id: second },
    ])
  })

  it('are names for templates everywhere: builds, capsules, and go with the template', async () => {
    const name = newName()
    await build(`${name}:v1`, 'one')
    await build(name, 'two')
    const below = await json<{ buildID: string; templateID: string }>(
      await post('/v3/templates', { name: newName() }),
      202,
    )
    const path = `/v2/templates/${below.templateID}/builds/${below.buildID}`
    expect((await post(path, { fromTemplate: `${name}:v3`, steps: [] })).status).toBe(404)
    expect((await post(path, { fromTemplate: `${name}:v1`, steps: [] })).status).toBe(202)
    await expect.poll(() => contentOf(below.templateID)).toBe('one')
    for (const template of [`${name}:v1`, `${name}:default`]) {
      const capsule = await platform.create({ template })
      expect(capsule.template).toBe(template)
    }
    expect((await platform.call('DELETE', `/templates/${name}`)).status).toBe(204)
    expect(await contentOf(`${name}:v1`)).toBe('404')
    expect((await platform.call('GET', `/templates/${name}/tags`)).status).toBe(404)
    expect((await db.selectFrom('template_tags').select('tag').where('name', '=', name).execute()).length).toBe(0)
  })

  it('can be given to a snapshot of a sandbox', async () => {
    const capsule = await platform.create()
    const name = newName()
    await json(await post('/v1/snapshots', { capsule_id: capsule.id, name }), 201)
    expect((await assign(name, 'v1')).status).toBe(201)
    expect((await tagsOf(name)).map(({ tag }) => tag)).toEqual(['default', 'v1'])
    expect((await post('/v2/sandboxes', { templateID: `${name}:v1` })).status).toBe(201)
    expect((await platform.call('DELETE', `/v1/snapshots/${name}`)).status).toBe(204)
    expect((await post('/v2/sandboxes', { templateID: `${name}:v1` })).status).toBe(404)
  })

  it('are refused where they make no sense', async () => {
    const name = newName()
    await build(name, 'one')
    expect(await refusal(await assign('nothing', 'v1'))).toEqual([404, expect.stringContaining('nothing')])
    expect(await refusal(await assign(`${name}:v9`, 'v1'))).toEqual([404, expect.stringContaining(name)])
    expect(await refusal(await assign('base', 'v1'))).toEqual([404, expect.stringContaining('base')])
    expect(await refusal(await assign(name))).toEqual([400, expect.stringContaining('tags')])
    expect(await refusal(await assign(name, 'a b'))).toEqual([400, expect.stringContaining('tags')])
    expect(await refusal(await remove(name, 'default'))).toEqual([400, expect.stringContaining('delete the template')])
    expect(await refusal(await remove('nothing', 'v1'))).toEqual([404, expect.stringContaining('nothing')])
    const many = Array.from({ length: 100 }, (_, index) => `t${index}`)
    expect((await assign(name, ...many)).status).toBe(201)
    expect((await assign(name, 'one-more')).status).toBe(429)
    expect((await tagsOf(name)).length).toBe(101)
    for (const path of [`/templates/${name}:t1`, `/v1/snapshots/${name}:t1`])
      expect([path, (await platform.call('DELETE', path)).status]).toEqual([path, 400])
    const { templateID } = await json<{ templateID: string }>(
      await platform.call('GET', `/templates/aliases/${name}:t1`),
      200,
    )
    expect(templateID).toBe(`${name}:t1`)
  })
})
