import { AppError } from '@wrenn/base'
import { scopes, teamScopes } from '@wrenn/protocol'
import { addKey } from '../../store/api-keys.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { listTeamNames, veryFirstTeam } from '../../store/teams.js'
import { newApiKey, storedForm } from './api-keys.js'
import { keyEntry } from './key-admin.js'

/** A key that was made for who holds the machine. */
export interface RecoveredKey {
  readonly id: string
  readonly teamId: string
  readonly teamName: string
  /** Nowhere else. */
  readonly key: string
}

/**
 * Makes a key with all scopes (`platform` for the first team alone) that does not expire, for a team that has lost all of its own. Asks for no key: whoever may write to the database
 * may do everything. The team's audit trail says that the platform itself did it.
 * @throws AppError `invalid_request` when it is not clear which team is meant
 */
export async function recoverKey(db: Db, wanted?: string): Promise<RecoveredKey> {
  return await db.transaction().execute(async (tx) => {
    const teams = await listTeamNames(tx)
    const team = choose(teams, wanted)
    const key = newApiKey()
    // The team that the platform began with has the keys of the platform; no other takes its place.
    const held = team.id === (await veryFirstTeam(tx)) ? scopes : teamScopes
    const row = await addKey(tx, {
      teamId: team.id,
      name: 'Recovered on the machine',
      scopes: held,
      ...storedForm(key),
    })
    if (row === undefined) throw new Error('a new random key was there already')
    await writeAudit(tx, keyEntry('api_key.recover', row, undefined))
    return { id: row.id, teamId: team.id, teamName: team.name, key }
  })
}

interface TeamName {
  readonly id: string
  readonly name: string
}

/** @throws AppError `invalid_request` */
function choose(teams: readonly TeamName[], wanted: string | undefined): TeamName {
  const [first, ...more] = wanted === undefined ? teams : teams.filter(({ id }) => id === wanted)
  if (first !== undefined && more.length === 0) return first
  const known = teams.map(({ id, name }) => `${id} (${name})`).join(', ')
  if (wanted !== undefined) throw new AppError('invalid_request', `There is no team ${wanted}; there are ${known}.`)
  if (first === undefined)
    throw new AppError('invalid_request', 'There is no team yet: `wrenn up` makes the first one.')
  throw new AppError('invalid_request', `There are several teams; say which one with --team: ${known}.`)
}
