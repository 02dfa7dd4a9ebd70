import type { AuditEntry, AuditPage, Capsule, NewApiKey } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newApiKey, storedForm } from './domain/accounts/index.js'
import { addKey } from './store/api-keys.js'
import { openDatabase } from './store/database.js'
import { createTeam } from './store/teams.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform
let shared: Capsule

beforeAll(async () => {
  platform = await startPlatform()
  shared = await platform.create()
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

async function trail(query: Record<string, string>): Promise<AuditEntry[]> {
  const path = `/v1/audit-logs?${new URLSearchParams(query)}`
  return (await json<AuditPage>(await platform.call('GET', path), 200)).items
}

/** What a capsule's entries say, oldest first. */
async function storyOf(id: string): Promise<string[]> {
  const entries = await trail({ resource_id: id, limit: '200' })
  return entries.reverse().map(({ action, outcome, actor_type }) => `${action} ${outcome} ${actor_type}`)
}

describe('the audit trail', () => {
  it('tells who asked for a change, from where, and how it ended', async () => {
    const made = await json<NewApiKey>(await platform.call('POST', '/v1/api-keys', { name: 'worker' }), 201)
    const withKey = { 'x-api-key': made.key }
    const created = await platform.call('POST', '/v1/capsules', { envs: { TOKEN: 'very secret' } }, withKey)
    const requestId = created.headers.get('x-request-id')
    const { id } = await json<Capsule>(created, 201)
    await json(await platform.call('PATCH', `/v1/capsules/${id}`, { name: 'new', timeout_sec: 600 }, withKey), 200)
    expect((await platform.call('DELETE', `/v1/capsules/${id}`, undefined, withKey)).status).toBe(204)
    await platform.until(id, 'stopped')
    expect(await storyOf(id)).toEqual([
      'capsule.create accepted key',
      'capsule.create success key',
      'capsule.update success key',
      'capsule.destroy accepted key',
      'capsule.destroy success key',
    ])
    const entries = await trail({ resource_id: id })
    const [begun, ended, updated] = entries.reverse()
    expect(begun).toMatchObject({ actor_id: made.id, actor_name: 'worker', request_id: requestId, ip: '127.0.0.1' })
    expect(ended).toMatchObject({ actor_id: made.id, request_id: requestId, details: begun?.details ?? {} })
    expect(updated?.details).toEqual({ fields: 'name,timeout_sec' })
    expect(JSON.stringify(entries)).not.toContain('very secret')
  })

  it.each([
    ['capsule.pause', 'POST', '/pause', undefined],
    ['capsule.resume', 'POST', '/resume', undefined],
    ['capsule.fork', 'POST', '/fork', {}],
    ['checkpoint.create', 'POST', '/checkpoints', { name: 'before' }],
    ['capsule.rollback', 'POST', '/checkpoints/before/rollback', undefined],
    ['checkpoint.delete', 'DELETE', '/checkpoints/before', undefined],
    ['capsule.atomic_exec', 'POST', '/exec', { cmd: 'true', atomic: true }],
  ] as const)('tells of %s when it begins and when it ends', async (action, method, path, body) => {
    const response = await platform.call(method, `/v1/capsules/${shared.id}${path}`, body)
    expect(response.ok, await response.text()).toBe(true)
    const entries = await trail({ resource_id: shared.id, action })
    const isMine = (entry: AuditEntry) => entry.actor_type === 'key'
    expect(entries.filter(isMine).map(({ outcome }) => outcome)).toEqual(['success', 'accepted'])
  })

  it('tells what failed, by its code, and what nobody asked for', async () => {
    const { id } = await platform.create()
    platform.host.die(id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    await platform.until(id, 'error')
    const [exit] = await trail({ resource_id: id })
    expect(exit).toMatchObject({
      action: 'capsule.exit',
      actor_type: 'system',
      outcome: 'failure',
      details: { cause: 'guest_panic', was: 'running', state: 'error' },
    })
    expect(exit?.actor_id).toBeUndefined()
  })

  it('tells of keys, without them, and of deleted snapshots', async () => {
    const made = await json<NewApiKey>(
      await platform.call('POST', '/v1/api-keys', { name: 'k', scopes: ['read'] }),
      201,
    )
    await platform.call('DELETE', `/v1/api-keys/${made.id}`)
    await platform.call('DELETE', `/v1/api-keys/${made.id}`)
    const entries = await trail({ resource_id: made.id })
    expect(entries.map(({ action, scope }) => [action, scope])).toEqual([
      ['api_key.revoke', 'admin'],
      ['api_key.create', 'admin'],
    ])
    expect(entries[1]?.details).toEqual({ name: 'k', key_prefix: made.key_prefix, scopes: 'read' })
    expect(JSON.stringify(entries)).not.toContain(made.key)
    const first = await trail({ action: 'api_key.create' })
    expect(first.at(-1)).toMatchObject({ actor_type: 'system', details: { name: 'First key' } })
    const { id } = await platform.create()
    await json(await platform.call('POST', '/v1/snapshots', { capsule_id: id, name: 'tools' }), 201)
    expect((await platform.call('DELETE', '/v1/snapshots/tools')).status).toBe(204)
    const [deleted] = await trail({ resource_type: 'snapshot' })
    expect(deleted).toMatchObject({ action: 'snapshot.delete', details: { name: 'tools' } })
    expect(await storyOf(id)).toContain('snapshot.create success key')
  })

  it('is only for its team, and can be exported whole', async () => {
    const db = openDatabase({ url: platform.databaseUrl })
    const stranger = newApiKey()
    const teamId = await createTeam(db, 'Strangers')
    await addKey(db, { teamId, name: 'stranger', scopes: ['admin'], ...storedForm(stranger) })
    await db.destroy()
    const asStranger = { 'x-api-key': stranger }
    const theirs = await platform.call('GET', '/v1/audit-logs', undefined, asStranger)
    expect(await json<AuditPage>(theirs, 200)).toEqual({ items: [] })
    expect(await (await platform.call('GET', '/v1/audit-logs/export', undefined, asStranger)).text()).toBe('')
    const response = await platform.call('GET', '/v1/audit-logs/export')
    expect(response.headers.get('content-type')).toContain('application/x-ndjson')
    const lines = (await response.text()).trimEnd().split('\n')
    const entries = lines.map((line): AuditEntry => JSON.parse(line))
    expect(entries.map(({ seq }) => seq)).toEqual(entries.map((_, index) => index + 1))
    for (const [index, entry] of entries.entries()) {
      if (index > 0) expect(entry.prev_hash).toBe(entries[index - 1]?.hash)
    }
    expect(entries[0]?.action).toBe('api_key.create')
    for (const bad of ['cursor=x', 'limit=0', 'since=yesterday', 'outcome=maybe', 'action=']) {
      expect((await platform.call('GET', `/v1/audit-logs?${bad}`)).status, bad).toBe(400)
    }
    expect((await platform.call('GET', '/v1/audit-logs/export?after_seq=-1')).status).toBe(400)
  })
})
