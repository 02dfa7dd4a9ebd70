import { createHash, randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { type Platform, pidsOf } from './platform.js'

/** The key that `wrenn up` leaves for its owner. */
export async function readApiKey(dir: string): Promise<string> {
  return (await readFile(join(dir, 'api-key'), 'utf8')).trim()
}

interface PgClient {
  connect(): Promise<void>
  query(text: string, values: readonly string[]): Promise<unknown>
  end(): Promise<void>
}

/** A key of a new team. There is no public way to make a team yet, so this writes the rows itself. */
export async function addTeamKey(platform: Platform, team: string): Promise<string> {
  const pg: { Client: new (options: { connectionString: string }) => PgClient } = createRequire(
    join(platform.artefacts, 'package.json'),
  )('pg')
  const client = new pg.Client({ connectionString: await databaseUrl(platform) })
  const key = `wrn_${randomBytes(16).toString('hex')}`
  const id = `${team}-${randomBytes(6).toString('hex')}`
  await client.connect()
  try {
    await client.query('INSERT INTO teams (id, name) VALUES ($1, $2)', [id, team])
    await client.query(
      'INSERT INTO api_keys (id, team_id, name, prefix, key_hash, scopes) VALUES ($1, $1, $2, $3, $4, $5)',
      [id, 'e2e', key.slice(0, 12), createHash('sha256').update(key).digest('hex'), '{read,capsules,templates,admin}'],
    )
  } finally {
    await client.end()
  }
  return key
}

async function databaseUrl(platform: Platform): Promise<string> {
  const pid = (await pidsOf(platform))['control-plane']
  const environment = await readFile(`/proc/${pid}/environ`, 'utf8')
  const found = environment.split('\0').find((entry) => entry.startsWith('DATABASE_URL='))
  if (found === undefined) throw new Error('The control plane has no DATABASE_URL.')
  return found.slice('DATABASE_URL='.length)
}
