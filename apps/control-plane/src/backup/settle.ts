import type { CapsuleState } from '@wrenn/protocol'
import type pg from 'pg'
import { PLATFORM_TEAM_ID } from '../domain/people/index.js'
import { writeAudit } from '../store/audit.js'
import { transition } from '../store/capsules.js'
import type { Db } from '../store/database.js'
import type { OneConnection } from '../store/one-connection.js'
import { finishOperation } from '../store/operations.js'
import type { OperationKind } from '../store/schema.js'
import type { TableInfo } from './catalog.js'
import type { BackupManifest } from './format.js'

/** Where the replaced database's revoked keys are until the end of the transaction. */
const REVOKED = 'wrenn_restore_revoked_keys'
/** The same of what machines that have joined come with next, and of the certificates that they were given. */
const HOSTS = 'wrenn_restore_joined_hosts'
const CERTIFICATES = 'wrenn_restore_host_certificates'
const IDENTITY = 'revoked_at, refresh_digest, rotation_key, rotations, refresh_key_hash, refresh_expires_at, updated_at'
const CERTIFICATE = 'serial, authority_serial, host_id, key_hash, issued_at, expires_at, revoked_at'
/** What proves who somebody is, or is on its way to: what was used or ended since the backup would be good again. */
const PROOFS = [
  'sessions',
  'email_tokens',
  'device_logins',
  'oauth_flows',
  'oauth_codes',
  'login_steps',
  'passkey_challenges',
] as const
/** What would be done anew to what has gone on meanwhile. A checkpoint or snapshot that fails now has its files removed, which may be good by now. */
const NOT_CARRIED_ON: readonly OperationKind[] = [
  ...(['create', 'fork', 'pause', 'resume', 'rollback', 'atomic_exec'] as const),
  ...(['checkpoint', 'snapshot', 'hibernate', 'move'] as const),
]
/** On its way by an operation that is carried on no more: the host says where it is. */
const onTheirWay: readonly CapsuleState[] = ['pending', 'starting', 'pausing', 'resuming']

/** What was changed in a database after it was restored, because the world has gone on. */
export interface Settled {
  readonly sessionsEnded: number
  readonly operationsEnded: number
  /** They show as missing until their host was asked. */
  readonly capsulesUnsure: number
  /** Their life was made longer by the time since the backup, and they are paused at its end. */
  readonly livesExtended: number
  /** Revoked in the database that was replaced, and so again. */
  readonly keysRevoked: number
  /** Keys that can be used now. */
  readonly keysInUse: number
}

/** Notes what the database that is about to be replaced knows of revoked keys. */
export async function rememberRevoked(client: pg.Client, before: readonly TableInfo[]): Promise<void> {
  await client.query(
    `CREATE TEMP TABLE ${REVOKED} (id text PRIMARY KEY, revoked_at timestamptz NOT NULL) ON COMMIT DROP`,
  )
  const isKnown = before.some(({ name, columns }) => name === 'api_keys' && columns.includes('revoked_at'))
  if (!isKnown) return
  await client.query(`INSERT INTO ${REVOKED} SELECT id, revoked_at FROM api_keys WHERE revoked_at IS NOT NULL`)
}

/** Notes what the database that is about to be replaced knows of machines that have joined: they renew by what they were given last. */
export async function rememberHosts(client: pg.Client, before: readonly TableInfo[]): Promise<void> {
  const kept = [
    [HOSTS, 'joined_hosts', `id, ${IDENTITY}`],
    [CERTIFICATES, 'host_certificates', CERTIFICATE],
  ] as const
  for (const [as, table, columns] of kept) {
    if (!before.some(({ name }) => name === table)) continue
    await client.query(`CREATE TEMP TABLE ${as} ON COMMIT DROP AS SELECT ${columns} FROM ${table}`)
  }
}

async function bringHostsUpToDate(client: pg.Client, before: readonly TableInfo[]): Promise<void> {
  const hasTable = (table: string): boolean => before.some(({ name }) => name === table)
  if (hasTable('joined_hosts')) {
    const newer = IDENTITY.split(', ').map((column) => `r.${column}`)
    await client.query(
      `UPDATE joined_hosts AS j SET (${IDENTITY}) = ROW (${newer.join(', ')}) FROM ${HOSTS} AS r
      WHERE r.id = j.id AND r.updated_at > j.updated_at`,
    )
  }
  if (hasTable('host_certificates')) {
    await client.query(
      `INSERT INTO host_certificates AS c (${CERTIFICATE}) SELECT ${CERTIFICATE} FROM ${CERTIFICATES} AS r
      WHERE EXISTS (SELECT FROM host_authorities AS a WHERE a.serial = r.authority_serial)
      ON CONFLICT (serial) DO UPDATE SET revoked_at = excluded.revoked_at WHERE c.revoked_at IS NULL`,
    )
  }
}

/** Makes a restored database fit a world that has gone on since: nobody is believed and nothing is done because of what was then. */
export async function settleRestored(
  { client, db }: OneConnection,
  manifest: BackupManifest,
  before: readonly TableInfo[],
): Promise<Settled> {
  // Their order is by transaction, and this server may be at a lower number than the one they are of.
  await client.query('UPDATE events SET xid = pg_current_xact_id()')
  let sessionsEnded = 0
  for (const table of PROOFS) {
    const { rowCount } = await client.query(`DELETE FROM ${table}`)
    if (table === 'sessions') sessionsEnded = rowCount ?? 0
  }
  const { rowCount: keysRevoked } = await client.query(
    `UPDATE api_keys AS k SET revoked_at = r.revoked_at FROM ${REVOKED} AS r WHERE r.id = k.id AND k.revoked_at IS NULL`,
  )
  await endOtherProofs(client)
  await bringHostsUpToDate(client, before)
  const livesExtended = await extendLives(client, manifest)
  const operationsEnded = await endOperations(db)
  const capsulesUnsure = await doubtCapsules(db)
  await keepStored(client)
  await writeAudit(db, {
    teamId: PLATFORM_TEAM_ID,
    actor: undefined,
    action: 'platform.restore',
    resource: { type: 'team', id: PLATFORM_TEAM_ID },
    scope: 'admin',
    details: { taken_at: manifest.taken_at, version: manifest.version },
  })
  const { rows } = await client.query<{ count: number }>(
    'SELECT count(*) AS count FROM api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())',
  )
  const keysInUse = rows[0]?.count ?? 0
  return { sessionsEnded, operationsEnded, capsulesUnsure, livesExtended, keysRevoked: keysRevoked ?? 0, keysInUse }
}

/** Invitations may have been revoked or used since, and tokens by which machines join; who asked for the end of an account may have taken that back. */
async function endOtherProofs(client: pg.Client): Promise<void> {
  await client.query('UPDATE invitations SET revoked_at = now() WHERE accepted_at IS NULL AND revoked_at IS NULL')
  await client.query('UPDATE joined_hosts SET token_digest = NULL WHERE token_digest IS NOT NULL')
  // Nor is a host emptied on because of what was wanted then; it stays cordoned.
  await client.query('DELETE FROM host_drains')
  await client.query(
    'UPDATE users SET erase_at = greatest(erase_at, now() + (erase_at - deleted_at)) WHERE erase_at IS NOT NULL AND erased_at IS NULL',
  )
}

/** Any life may have been made longer since, also one that ends only after the restore: none is destroyed by what was then. */
async function extendLives(client: pg.Client, { taken_at: takenAt }: BackupManifest): Promise<number> {
  const { rowCount } = await client.query(
    `UPDATE capsules SET ends_at = ends_at + (now() - $1::timestamptz), on_end = 'pause'
    WHERE ends_at IS NOT NULL AND state NOT IN ('stopping', 'stopped')`,
    [takenAt],
  )
  return rowCount ?? 0
}

async function endOperations(db: Db): Promise<number> {
  const running = await db
    .selectFrom('operations')
    .select('id')
    .where('state', '=', 'running')
    .where('kind', 'in', NOT_CARRIED_ON)
    .execute()
  const message = 'The database was restored from a backup of before this had ended; what became of it is on its host.'
  for (const { id } of running)
    await finishOperation(db, id, { error: { code: 'conflict', message }, releaseKey: true })
  // Nobody makes them any more, and their names are free again. What a host has of them stays there.
  await db.deleteFrom('checkpoints').where('state', '=', 'creating').execute()
  await db.deleteFrom('snapshots').where('state', '=', 'creating').execute()
  return running.length
}

/** What was on its way into the object store may be all that there is of a capsule by now: what no capsule names stays there, and what it stands on. */
async function keepStored(client: pg.Client): Promise<void> {
  await client.query(
    'DELETE FROM stored_states AS s WHERE NOT EXISTS (SELECT FROM capsules AS c WHERE s.id IN (c.stored_state, c.fallback_state))',
  )
  await client.query('DELETE FROM stored_layers')
}

async function doubtCapsules(db: Db): Promise<number> {
  const rows = await db.selectFrom('capsules').selectAll().where('state', 'in', onTheirWay).execute()
  const doubted = { observed_state: 'silent', observed_at: new Date() } as const
  for (const row of rows) {
    // What was fetched then is in the store as far as is known.
    if (row.stored_state === null) await transition(db, row, 'lost', doubted)
    else await transition(db, row, 'hibernated', { ...doubted, host_id: null, desired_state: 'paused' })
  }
  return rows.length
}
