import { testPostgresKinds } from '@wrenn/testkit'
import { sql } from 'kysely'
import { beforeEach, describe, expect, it } from 'vitest'
import { useDatabases } from '../testing/databases.js'
import type { Db } from './database.js'
import { createTeam } from './teams.js'
import { endHeldBuild, postponeBuild, takeBuild } from './template-builds.js'

const LEASE_MS = 60_000
const MAX_MS = 3_600_000

describe.each(testPostgresKinds())('builds that wait on $name', ({ start }) => {
  const fresh = useDatabases(start)
  let db: Db

  beforeEach(async () => {
    db = (await fresh()).db
  })

  /** Builds that a team asked for one after the other, each a second later than the one before. */
  async function team(name: string, ...ids: string[]): Promise<void> {
    const teamId = await createTeam(db, name)
    for (const [at, id] of ids.entries()) {
      await sql`INSERT INTO template_builds (id, team_id, name, state, plan, due_at)
        VALUES (${id}, ${teamId}, ${id}, 'waiting', '{}', now() - interval '1 hour' + ${at} * interval '1 second')`.execute(
        db,
      )
    }
  }
  const take = () => takeBuild(db, LEASE_MS, MAX_MS)

  /** Who takes them, one at a time. */
  async function order(): Promise<string[]> {
    const taken: string[] = []
    for (let build = await take(); build !== undefined; build = await take()) {
      taken.push(build.id)
      await endHeldBuild(db, build, { state: 'error', reason: { message: 'of the test' } })
    }
    return taken
  }

  it('are taken team by team in turn, and each team’s in the order they came', async () => {
    await team('many', 'm1', 'm2', 'm3', 'm4')
    await team('few', 'f1')
    await team('some', 's1', 's2')
    const taken = await order()
    expect(taken.slice(0, 3).sort()).toEqual(['f1', 'm1', 's1'])
    expect(taken.slice(3, 5).sort()).toEqual(['m2', 's2'])
    expect(taken.slice(5)).toEqual(['m3', 'm4'])
  })

  it('go first where fewer of their team are under way', async () => {
    await team('many', 'm1', 'm2', 'm3')
    expect([(await take())?.id, (await take())?.id]).toEqual(['m1', 'm2'])
    await team('few', 'f1', 'f2')
    expect([(await take())?.id, (await take())?.id, (await take())?.id]).toEqual(['f1', 'f2', 'm3'])
    expect(await take()).toBeUndefined()
  })

  it('are taken again when nobody holds them, and not before they are due', async () => {
    await team('one', 'a')
    const held = await take()
    if (held === undefined) throw new Error('nothing was taken')
    expect(await take()).toBeUndefined()
    await postponeBuild(db, held, 0, false)
    expect((await take())?.attempts).toBe(2)
  })
})
