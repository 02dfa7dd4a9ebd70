import { auditIds, silentLogger } from '@wrenn/base'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listAudit } from '../../store/audit.js'
import { setDataAccessAudit } from '../../store/audit-access.js'
import { type Db, migrateUp, openDatabase } from '../../store/database.js'
import { createTeam } from '../../store/teams.js'
import { AccessLog } from './access-log.js'
import { successor } from './successor.js'

let postgres: TestPostgres
let db: Db

beforeAll(async () => {
  postgres = await startTestPostgres()
  db = openDatabase({ url: postgres.url })
  await migrateUp(db)
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await postgres[Symbol.asyncDispose]()
})

const notifications = { isFresh: false, listen: () => {} }
const actor = { kind: 'token', ip: '192.0.2.1' } as const

async function auditedTeam(): Promise<string> {
  const teamId = await createTeam(db, 'Watched')
  await setDataAccessAudit(db, teamId, true)
  return teamId
}

/** A log that nothing writes but its stop. */
async function stopped(
  teamId: string,
  use: (record: (action: string, details?: object) => void) => void,
  maxWaiting = 10_000,
) {
  const log = new AccessLog({ db, notifications, logger: silentLogger, maxWaiting })
  const record = await log.recorderFor({ teamId, id: 'cl-1' }, actor)
  if (record === undefined) throw new Error('the team is not audited')
  use((action, details = {}) => record(action, 'success', details as Parameters<typeof record>[2]))
  await log.stop()
  return (await listAudit(db, teamId, { limit: 2_000 })).reverse()
}

describe('a log of data access', () => {
  it('keeps the order in which things happened, also of those of one moment', async () => {
    const teamId = await auditedTeam()
    const names = Array.from({ length: 1_200 }, (_, n) => `capsule.step_${n}`)
    const entries = await stopped(teamId, (record) => {
      for (const name of names) record(name)
    })
    expect(entries.map(({ action }) => action)).toEqual(names)
    expect(entries[0]).toMatchObject({ actor_type: 'token', ip: '192.0.2.1', resource_id: 'cl-1', scope: 'team' })
  })

  it('is of teams that want it', async () => {
    const log = new AccessLog({ db, notifications, logger: silentLogger })
    const teamId = await createTeam(db, 'Others')
    expect(await log.recorderFor({ teamId, id: 'cl-1' }, actor)).toBeUndefined()
    await log.stop()
  })

  it('bounds what an entry says, and says nothing that the database cannot hold', async () => {
    const teamId = await auditedTeam()
    const [entry] = await stopped(teamId, (record) => {
      record('capsule.exec', { long: 'é'.repeat(5_000), odd: 'a\0b\ud800', number: 7, absent: undefined })
    })
    const { long = '', ...rest } = entry?.details ?? {}
    expect(Buffer.byteLength(long)).toBeLessThanOrEqual(4096)
    expect(long).toMatch(/^é+…$/)
    expect(rest).toEqual({ odd: 'a\ufffdb\ufffd', number: '7' })
  })

  it('tells how many entries it has lost when more waited than it keeps', async () => {
    const teamId = await auditedTeam()
    const entries = await stopped(
      teamId,
      (record) => {
        for (let n = 0; n < 5; n++) record(`capsule.step_${n}`)
      },
      6,
    )
    expect(entries.map(({ action, details }) => [action, details])).toEqual([
      ['capsule.step_0', {}],
      ['capsule.step_1', {}],
      ['capsule.step_2', {}],
      ['team.lose_entries', { entries: '2' }],
    ])
  })

  it('has places for a team, whatever others do', async () => {
    const [busy, other] = [await auditedTeam(), await auditedTeam()]
    const log = new AccessLog({ db, notifications, logger: silentLogger, maxWaiting: 8 })
    const recorderOf = async (teamId: string) => {
      const record = await log.recorderFor({ teamId, id: 'cl-1' }, actor)
      if (record === undefined) throw new Error('the team is not audited')
      return record
    }
    const [recordBusy, recordOther] = [await recorderOf(busy), await recorderOf(other)]
    for (let n = 0; n < 100; n++) recordBusy('capsule.exec', 'success', {})
    for (let n = 0; n < 2; n++) recordOther('capsule.exec', 'success', {})
    await log.stop()
    const actionsOf = async (teamId: string) =>
      (await listAudit(db, teamId, { limit: 100 })).map(({ action }) => action)
    expect(await actionsOf(other)).toEqual(['capsule.exec', 'capsule.exec'])
    expect((await actionsOf(busy)).sort()).toEqual([...Array(4).fill('capsule.exec'), 'team.lose_entries'])
  })

  it('gives the places of what was written to who comes next', async () => {
    const teamId = await auditedTeam()
    const log = new AccessLog({ db, notifications, logger: silentLogger, maxWaiting: 4 })
    const record = await log.recorderFor({ teamId, id: 'cl-1' }, actor)
    for (let round = 0; round < 3; round++) {
      for (let n = 0; n < 2; n++) record?.('capsule.exec', 'success', {})
      await log.stop()
    }
    expect((await listAudit(db, teamId, { limit: 100 })).map(({ action }) => action)).toEqual(
      Array(6).fill('capsule.exec'),
    )
  })
})

describe('the successor of an id', () => {
  it('is the next one in their order', () => {
    expect(successor('log-0a')).toBe('log-0b')
    expect(successor('log-09zz')).toBe('log-0a00')
    const id = auditIds.create()
    expect(auditIds.is(successor(id))).toBe(true)
    expect(successor(id) > id).toBe(true)
  })
})
