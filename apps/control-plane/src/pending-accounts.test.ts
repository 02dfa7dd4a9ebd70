import type { NewUser } from '@wrenn/protocol'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'
import { newEmail, PASSWORD, People, refusal } from './testing/people.js'

let platform: Platform
let db: Db
let people: People

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_TRUSTED_PROXIES: '127.0.0.1,::1', WRENN_PENDING_ACCOUNT_DAYS: '3' } })
  db = openDatabase({ url: platform.databaseUrl })
  people = new People(platform)
  await people.add('Ada')
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
})

const add = async (email = newEmail()) =>
  await json<NewUser>(await platform.call('POST', '/v1/admin/users', { email, name: 'Somebody' }), 201)
/** Moves what was made back in time. */
async function age(id: string, days: number, tokenDays = days): Promise<void> {
  await sql`UPDATE users SET created_at = created_at - ${days} * interval '1 day' WHERE id = ${id}`.execute(db)
  await sql`UPDATE email_tokens SET expires_at = expires_at - ${tokenDays} * interval '1 day' WHERE user_id = ${id}`.execute(
    db,
  )
}
const isThere = async (id: string) =>
  (await db.selectFrom('users').select('id').where('id', '=', id).executeTakeFirst()) !== undefined

describe('an account that nobody activates', () => {
  it('is forgotten after its time, which the trail tells, and its address is free again', async () => {
    const [old, young, asked] = [await add(), await add(), await add()]
    await age(young.id, 2, 10)
    // Its token still opens it.
    await age(asked.id, 10, 1)
    await age(old.id, 10)
    await expect.poll(() => isThere(old.id)).toBe(false)
    expect([await isThere(young.id), await isThere(asked.id)]).toEqual([true, true])
    const told = await db.selectFrom('audit_log').selectAll().where('resource_id', '=', old.id).orderBy('at').execute()
    expect(told.map(({ action, actor_type }) => `${action} ${actor_type}`)).toEqual([
      'user.create key',
      'user.expire system',
    ])
    const late = { body: { token: old.activation_token, password: PASSWORD } }
    expect(await refusal(await people.call('/v1/auth/activate', late))).toBe('400 invalid_token')
    expect((await add(old.email)).id).not.toBe(old.id)
  })

  it('is another matter once it was activated', async () => {
    const person = await people.add()
    await age(person.user_id, 10)
    const old = await add()
    await age(old.id, 10)
    await expect.poll(() => isThere(old.id)).toBe(false)
    expect(await isThere(person.user_id)).toBe(true)
  })
})
