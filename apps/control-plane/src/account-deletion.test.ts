import { createHash } from 'node:crypto'
import { AUDIT_GENESIS, type AuditEntry, auditText, type ErrorBody, type NewApiKey, type User } from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ControlPlane } from './control-plane.js'
import { type Db, openDatabase } from './store/database.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'
import { PASSWORD, People, refusal, type Tokens } from './testing/people.js'

const DAY_MS = 24 * 3600 * 1000

let platform: Platform
let replica: ControlPlane
let db: Db
let people: People
let admin: Tokens

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_TRUSTED_PROXIES: '127.0.0.1,::1' } })
  replica = await startReplica(platform)
  db = openDatabase({ url: platform.databaseUrl })
  people = new People(platform)
  admin = await people.add('Ada')
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await replica[Symbol.asyncDispose]()
  await platform[Symbol.asyncDispose]()
})

const remove = ({ token, email }: Tokens, confirmation = email) =>
  people.call('/v1/me', { method: 'DELETE', token, body: { confirmation } })
const userRow = (id: string) => db.selectFrom('users').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
const endGrace = (id: string) =>
  sql`UPDATE users SET erase_at = now() - interval '1 second' WHERE id = ${id}`.execute(db)
const untilErased = (id: string) => expect.poll(async () => (await userRow(id)).erased_at).not.toBeNull()
const keyOf = async (token: string, body: object) =>
  await json<NewApiKey>(await people.call('/v1/api-keys', { token, body }), 201)
const reads = async (key: string, url: string) =>
  (await people.call('/v1/capsules', { headers: { 'x-api-key': key }, url })).status
const join = (teamId: string, userId: string) =>
  db.insertInto('team_members').values({ team_id: teamId, user_id: userId, role: 'member' }).execute()
const mailsTo = async (email: string) => {
  const mails = await db.selectFrom('mails').select(['kind', 'data']).where('recipient', '=', email).execute()
  return mails.map(({ kind, data }) => ({ kind, ...data }))
}

describe('deleting an account', () => {
  it('ends its sessions, its keys and theirs on every control plane, and says until when it can be taken back', async () => {
    const person = await people.add()
    const made = await keyOf(person.token, { scopes: ['read', 'admin'] })
    const again = await json<NewApiKey>(
      await people.call('/v1/api-keys', { headers: { 'x-api-key': made.key }, body: { scopes: ['read'] } }),
      201,
    )
    const other = await json<Tokens>(await people.login(person.email), 200)
    for (const key of [made.key, again.key]) expect(await reads(key, replica.url)).toBe(200)
    const response = await remove(person, person.email.toUpperCase())
    const { erase_at: eraseAt } = await json<{ erase_at: string }>(response, 202)
    expect(Math.abs(Date.parse(eraseAt) - Date.now() - 15 * DAY_MS)).toBeLessThan(60_000)
    for (const url of [platform.url, replica.url]) {
      for (const { token } of [person, other]) await expect.poll(() => people.statusOf(token, url)).toBe(401)
      for (const key of [made.key, again.key]) await expect.poll(() => reads(key, url)).toBe(401)
    }
    const refresh = { body: { refresh_token: other.refresh_token } }
    expect(await refusal(await people.call('/v1/auth/refresh', refresh))).toBe('401 unauthorized')
    expect(await mailsTo(person.email)).toEqual([{ kind: 'deletion-scheduled', name: 'Somebody', deletedAt: eraseAt }])
    const told = await json<ErrorBody>(await people.login(person.email), 403)
    expect(told.error).toMatchObject({ code: 'deletion_pending', details: { eraseAt } })
    expect(await refusal(await people.login(person.email, { password: 'wrong' }))).toBe('401 unauthorized')
    expect(await refusal(await people.login(person.email, { password: 'wrong', restore: true }))).toBe(
      '401 unauthorized',
    )
    const back = await json<Tokens>(await people.login(person.email, { restore: true }), 200)
    expect(back.team_id).toBe(person.team_id)
    expect(await reads(made.key, platform.url)).toBe(401)
    expect((await people.login(person.email)).status).toBe(200)
    expect(await userRow(person.user_id)).toMatchObject({ deleted_at: null, erase_at: null })
  })

  it('needs the address, and a proof of the last minutes that it is its owner', async () => {
    const person = await people.add()
    expect(await refusal(await remove(person, 'somebody@example.org'))).toBe('400 invalid_request')
    await sql`UPDATE sessions SET confirmed_at = now() - interval '11 minutes' WHERE id = ${person.session_id}`.execute(
      db,
    )
    expect(await refusal(await remove(person))).toBe('403 confirmation_needed')
    const confirm = (password: string, place?: string) =>
      people.call('/v1/auth/confirm', {
        token: person.token,
        body: { password },
        ...(place === undefined ? {} : { place }),
      })
    expect(await refusal(await confirm('wrong'))).toBe('401 wrong_password')
    expect(await refusal(await remove(person))).toBe('403 confirmation_needed')
    for (let n = 0; n < 10; n++) await (await confirm('wrong', '10.9.8.7')).arrayBuffer()
    expect(await refusal(await confirm(PASSWORD, '10.9.8.7'))).toBe('429 limit_exceeded')
    expect((await confirm(PASSWORD)).status).toBe(204)
    expect((await remove(person)).status).toBe(202)
  })

  it('asks a program that was let in by a page for the password, however young its session is', async () => {
    const person = await people.add()
    const begun = await json<{ device_code: string; user_code: string }>(
      await people.call('/v1/auth/device', { body: { client: 'a program' } }),
      201,
    )
    const approval = { token: person.token, body: { approve: true } }
    expect((await people.call(`/v1/auth/device/${begun.user_code}`, approval)).status).toBe(204)
    const device = { body: { device_code: begun.device_code } }
    const program = await json<Tokens>(await people.call('/v1/auth/device/token', device), 200)
    expect(await refusal(await remove(program))).toBe('403 confirmation_needed')
  })

  it('is refused while others are in a team of theirs, which it names, and to the last admin of the platform', async () => {
    const [owner, member] = [await people.add(), await people.add()]
    await join(owner.team_id, member.user_id)
    await sql`UPDATE teams SET name = 'Data science' WHERE id = ${owner.team_id}`.execute(db)
    const refused = await json<ErrorBody>(await remove(owner), 409)
    expect(refused.error).toMatchObject({ code: 'owns_team_with_members', details: { teams: [owner.team_id] } })
    expect(refused.error.message).toContain('“Data science”')
    expect(await people.statusOf(owner.token)).toBe(200)
    const transfer = { token: owner.token, body: { user_id: member.user_id } }
    expect((await people.call(`/v1/teams/${owner.team_id}/transfer`, transfer)).status).toBe(204)
    expect((await remove(owner)).status).toBe(202)
    expect(await refusal(await remove(admin))).toBe('409 conflict')
  })

  it('happens once, however often it is asked for at once', async () => {
    const person = await people.add()
    const all = await Promise.all(Array.from({ length: 6 }, () => remove(person)))
    expect(all.filter(({ status }) => status === 202)).toHaveLength(1)
    expect(await mailsTo(person.email)).toHaveLength(1)
  })

  it('can be taken back by an admin, who sees it in the list', async () => {
    const person = await people.add()
    const restore = () => platform.call('POST', `/v1/admin/users/${person.user_id}/restore`)
    expect(await refusal(await restore())).toBe('409 conflict')
    await remove(person)
    const users = await json<User[]>(await platform.call('GET', '/v1/admin/users'), 200)
    expect(users.find(({ id }) => id === person.user_id)).toMatchObject({
      status: 'deleted',
      erase_at: expect.stringMatching(/^2/),
    })
    const disable = platform.call('PATCH', `/v1/admin/users/${person.user_id}`, { status: 'disabled' })
    expect(await refusal(await disable)).toBe('409 conflict')
    expect(await json<User>(await restore(), 200)).toMatchObject({ status: 'active' })
    expect((await people.login(person.email)).status).toBe(200)
  })
})

describe('an account whose time is over', () => {
  const exported = async (teamId: string): Promise<AuditEntry[]> => {
    const key = { id: `key-${teamId.slice(5)}`, hash: createHash('sha256').update(teamId).digest('hex') }
    await db
      .insertInto('api_keys')
      .values({ id: key.id, team_id: teamId, name: 'auditor', prefix: 'x', key_hash: key.hash, scopes: ['admin'] })
      .execute()
    const response = await people.call('/v1/audit-logs/export', { headers: { 'x-api-key': teamId } })
    expect(response.status).toBe(200)
    return (await response.text())
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
  }
  const expectUnbroken = (entries: readonly AuditEntry[]): void => {
    let previous: string | undefined = AUDIT_GENESIS
    for (const each of entries) {
      expect(each.prev_hash).toBe(previous)
      expect(createHash('sha256').update(auditText(each)).digest('hex')).toBe(each.hash)
      previous = each.hash
    }
  }

  it('leaves nothing of its person but an id, once, with a trail that still verifies', async () => {
    const person = await people.add('Grace Hopper')
    const { key } = await keyOf(person.token, { scopes: ['capsules'] })
    const made = await people.call('/v1/capsules', { headers: { 'x-api-key': key }, body: {} })
    const capsule = await json<{ id: string }>(made, 201)
    const paused = await people.call(`/v1/capsules/${capsule.id}/pause`, { token: person.token, body: {} })
    expect(paused.status).toBeLessThan(300)
    const before = await exported(person.team_id)
    expectUnbroken(before)
    expect(before.some(({ actor_email }) => actor_email === person.email)).toBe(true)
    await remove(person)
    await endGrace(person.user_id)
    await untilErased(person.user_id)
    expect(await userRow(person.user_id)).toMatchObject({
      email: '',
      name: '',
      password_hash: null,
      status: 'disabled',
    })
    const team = await db.selectFrom('teams').selectAll().where('id', '=', person.team_id).executeTakeFirstOrThrow()
    expect(team.deleted_at).not.toBeNull()
    const stateOf = async () =>
      (await db.selectFrom('capsules').select('state').where('id', '=', capsule.id).executeTakeFirst())?.state
    await expect.poll(stateOf).toBe('stopped')
    expect(await mailsTo(person.email)).toMatchObject([{ kind: 'deletion-scheduled' }, { kind: 'account-deleted' }])
    await db
      .updateTable('teams')
      .set({ deleted_at: null as never })
      .where('id', '=', person.team_id)
      .execute()
    await db.deleteFrom('api_keys').where('name', '=', 'auditor').execute()
    const after = await exported(person.team_id)
    expectUnbroken(after)
    expect(after.slice(0, before.length).map(({ hash }) => hash)).toEqual(before.map(({ hash }) => hash))
    expect(after.filter(({ action }) => action === 'user.erase')).toHaveLength(1)
    expect(after.filter(({ action }) => action === 'team.delete')).toHaveLength(1)
    await db.deleteFrom('mails').where('recipient', '=', person.email).execute()
    const tables = await sql<{ name: string }>`SELECT table_name AS name FROM information_schema.tables
      WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`.execute(db)
    for (const { name } of tables.rows) {
      const { rows } = await sql<{
        text: string
      }>`SELECT to_jsonb(t)::text AS text FROM ${sql.table(name)} AS t`.execute(db)
      const left = rows.filter(({ text }) => text.includes(person.email) || text.includes('Grace'))
      expect({ name, left }).toEqual({ name, left: [] })
    }
    const restore = platform.call('POST', `/v1/admin/users/${person.user_id}/restore`)
    expect(await refusal(await restore)).toBe('404 user_not_found')
    expect(await refusal(await people.login(person.email, { restore: true }))).toBe('401 unauthorized')
    const anew = await platform.call('POST', '/v1/admin/users', { email: person.email, name: 'Anew' })
    expect(anew.status).toBe(201)
  })

  it('stays while it is taken back at the same moment, or is erased: never half of it', async () => {
    const persons = await Promise.all(Array.from({ length: 6 }, () => people.add()))
    for (const person of persons) expect((await remove(person)).status).toBe(202)
    const outcomes = await Promise.all(
      persons.map(async ({ user_id, email }) => {
        const ending = endGrace(user_id)
        const { status } = await people.login(email, { restore: true })
        await ending
        return status
      }),
    )
    for (const [n, { user_id, team_id, email }] of persons.entries()) {
      const isKept = outcomes[n] === 200
      if (!isKept) await untilErased(user_id)
      const row = await userRow(user_id)
      expect(row).toMatchObject(isKept ? { email, erased_at: null } : { email: '' })
      const team = await db.selectFrom('teams').select('deleted_at').where('id', '=', team_id).executeTakeFirstOrThrow()
      expect(team.deleted_at === null).toBe(isKept)
    }
  })

  it('hands on a team that somebody came into meanwhile', async () => {
    const [owner, member] = [await people.add(), await people.add()]
    await remove(owner)
    await join(owner.team_id, member.user_id)
    await endGrace(owner.user_id)
    await untilErased(owner.user_id)
    const left = await db.selectFrom('team_members').selectAll().where('team_id', '=', owner.team_id).execute()
    expect(left).toMatchObject([{ user_id: member.user_id, role: 'owner' }])
  })
})
