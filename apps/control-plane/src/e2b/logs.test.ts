import type { ListedTeam, NewApiKey } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newApiKey, storedForm } from '../domain/accounts/index.js'
import { addKey } from '../store/api-keys.js'
import { openDatabase } from '../store/database.js'
import { createTeam } from '../store/teams.js'
import { json, type Platform, startPlatform } from '../testing/harness.js'

interface Entry {
  readonly timestamp: string
  readonly level: string
  readonly message: string
  readonly fields: Readonly<Record<string, string>>
}

interface OldLogs {
  readonly logs: readonly { readonly timestamp: string; readonly line: string }[]
  readonly logEntries: readonly Entry[]
}

let platform: Platform
let id: string

beforeAll(async () => {
  platform = await startPlatform()
  id = (await json<{ sandboxID: string }>(await platform.call('POST', '/v2/sandboxes', { templateID: 'base' }), 201))
    .sandboxID
  expect((await platform.call('POST', `/sandboxes/${id}/pause`, {})).status).toBe(204)
  expect((await platform.call('POST', `/sandboxes/${id}/connect`, { timeout: 3_000 })).status).toBe(201)
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

const logs = async (of: string, query = '', key = platform.key): Promise<readonly Entry[]> => {
  const answer = await platform.call('GET', `/v2/sandboxes/${of}/logs?${query}`, undefined, { 'x-api-key': key })
  return (await json<{ logs: Entry[] }>(answer, 200)).logs
}
const messages = async (of: string, query = '', key = platform.key): Promise<readonly string[]> =>
  (await logs(of, query, key)).map(({ message }) => message)

const life = ['Created', 'Paused', 'Resumed']

describe('the log of a sandbox', () => {
  it('tells what happened to it in the order of time, and more of it from the level debug on', async () => {
    await expect.poll(async () => await messages(id, 'level=info')).toEqual(life)
    const all = await logs(id)
    expect(all.map(({ message }) => message)).toEqual(expect.arrayContaining([...life, 'Create begun', 'Pause begun']))
    const times = all.map(({ timestamp }) => timestamp)
    expect(times).toEqual([...times].sort())
    expect(all.find(({ message }) => message === 'Paused')).toMatchObject({
      level: 'info',
      fields: { logger: 'sandbox', action: 'capsule.pause' },
    })
  })

  it('is read from a moment on, or back from one, some lines at a time, by a text in them', async () => {
    await expect.poll(async () => await messages(id, 'level=info')).toEqual(life)
    expect(await messages(id, 'level=info&direction=backward')).toEqual([...life].reverse())
    expect(await messages(id, 'level=info&limit=1')).toEqual(['Created'])
    expect(await messages(id, 'limit=0')).toEqual([])
    expect(await messages(id, 'search=used')).toEqual(['Paused'])
    expect(await messages(id, 'search=Used')).toEqual([])
    const [, paused] = await logs(id, 'level=info')
    const at = Date.parse(paused?.timestamp ?? '')
    expect(await messages(id, `level=info&cursor=${at}`)).toEqual(['Paused', 'Resumed'])
    expect(await messages(id, `level=info&cursor=${at + 1}`)).toEqual(['Resumed'])
    expect(await messages(id, `level=info&cursor=${at}&direction=backward`)).toEqual(['Paused', 'Created'])
    for (const query of ['cursor=-1', 'limit=1001', 'level=loud', 'direction=up', `search=${'x'.repeat(257)}`]) {
      expect((await platform.call('GET', `/v2/sandboxes/${id}/logs?${query}`)).status, query).toBe(400)
    }
  })

  it('has lines that are objects for the older clients, which go on after the last one that they saw', async () => {
    await expect.poll(async () => await messages(id, 'level=info')).toEqual(life)
    const read = async (query = '') =>
      await json<OldLogs>(await platform.call('GET', `/sandboxes/${id}/logs?${query}`), 200)
    const { logs: lines, logEntries } = await read()
    expect((await logs(id)).slice(0, logEntries.length)).toEqual(logEntries)
    expect(lines.map(({ line }) => JSON.parse(line))).toEqual(
      logEntries.map(({ level, message, fields }) => ({ level, message, ...fields, sandboxID: id })),
    )
    const last = Date.parse(lines.at(-1)?.timestamp ?? '')
    const later = (await read(`start=${last + 1}`)).logs.filter(({ timestamp }) => Date.parse(timestamp) <= last)
    expect(later).toEqual([])
    expect((await read(`start=${last}&limit=1`)).logs).toEqual(lines.slice(-1))
  })

  it('is there when the sandbox has ended, and of no other team’s or none', async () => {
    const made = await json<{ sandboxID: string }>(
      await platform.call('POST', '/v2/sandboxes', { templateID: 'base' }),
      201,
    )
    expect((await platform.call('DELETE', `/sandboxes/${made.sandboxID}`)).status).toBe(204)
    await expect.poll(async () => await messages(made.sandboxID, 'level=info')).toEqual(['Created', 'Killed'])
    expect((await platform.call('GET', `/v2/sandboxes/cl-${'0'.repeat(25)}/logs`)).status).toBe(404)
    const db = openDatabase({ url: platform.databaseUrl })
    const teamId = await createTeam(db, 'Strangers')
    const key = newApiKey()
    await addKey(db, { teamId, name: 'stranger', scopes: ['read', 'capsules'], ...storedForm(key) })
    await db.destroy()
    const foreign = await platform.call('GET', `/sandboxes/${id}/logs`, undefined, { 'x-api-key': key })
    expect(await json<object>(foreign, 404)).toMatchObject({ code: 404 })
  })

  it('tells of processes where the team notes them, to who may use the sandbox, without their arguments', async () => {
    const [team] = await json<ListedTeam[]>(await platform.call('GET', '/v1/teams'), 200)
    const on = await platform.call('PATCH', `/v1/teams/${team?.id}`, { audit_data_access: true })
    expect(on.status).toBe(204)
    const body = { cmd: '/bin/sh', args: ['-c', 'echo hush-hush; exit 3'], envs: { TOKEN: 'hush-hush' }, cwd: '/' }
    await json(await platform.call('POST', `/v1/capsules/${id}/exec`, body), 200)
    const wanted = ['Process started', 'Process ended with exit code 3']
    await expect.poll(async () => await messages(id, 'search=Process')).toEqual(wanted)
    const [, ended] = await logs(id, 'search=Process')
    expect(ended?.fields).toMatchObject({ logger: 'process', program: '/bin/sh', exit_code: '3' })
    expect(JSON.stringify(await logs(id))).not.toContain('hush-hush')
    const { key } = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { scopes: ['read'] }), 201)
    expect(await messages(id, 'search=Process', key)).toEqual([])
    expect(await messages(id, 'level=info', key)).toEqual(life)
  })
})
