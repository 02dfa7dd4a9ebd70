import { type FileHandle, open } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, isErrno } from '@wrenn/base'
import type pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import { type BrokenChain, verifyChains } from '../domain/audit/index.js'
import type { Keyring } from '../domain/secrets/index.js'
import {
  type Db,
  MIGRATION_LOCK,
  migrateUp,
  migrateUpTo,
  migrationNames,
  requireNoControlPlane,
} from '../store/database.js'
import { OneConnection } from '../store/one-connection.js'
import { damaged } from './archive-reader.js'
import { backUpToFile } from './backup.js'
import { dropEverything, dropForeignKeys, listTables, quoted, readMigrations, type TableInfo } from './catalog.js'
import { checkArchive, readTables, type TablePart } from './check.js'
import type { BackupManifest, BackupTable, OnProgress } from './format.js'
import { rememberHosts, rememberRevoked, type Settled, settleRestored } from './settle.js'

const APPLICATION = 'wrenn-restore'
const LEAVING_MS = 2_000
const LOOK_AGAIN_MS = 50

interface RestoreOptions {
  readonly url: string
  /** Of this platform. */
  readonly version: string
  /** What secrets can be opened with. */
  readonly keyring: Keyring
  /** Restores although secrets in it can then not be read. */
  readonly withoutKeys: boolean
  /** Where a database that has something is kept before it is replaced; `undefined`: it is not replaced. */
  readonly keepAt: string | undefined
  readonly onProgress?: OnProgress
}

/** What became of a restore. */
export interface RestoreResult extends Settled {
  readonly manifest: BackupManifest
  /** Ids of keys that are not at hand. */
  readonly missingKeys: readonly string[]
  /** Where the replaced database is. */
  readonly keptAt: string | undefined
  readonly auditEntries: number
  /** As they were in the backup. */
  readonly brokenChains: readonly BrokenChain[]
}

/** An archive, with nothing but itself looked at. @throws AppError `file_not_found` */
export async function openArchive(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) throw new AppError('file_not_found', `There is no file ${path}.`)
    throw error
  }
}

/**
 * Puts a database in the place of what is there: checked as a whole before anything is touched, then in one transaction, at whose end it is of
 * this version. A failure at any point leaves the database as it was.
 * @throws AppError `invalid_request` for a damaged archive, `not_supported` for a newer one, `invalid_config` without its keys, `conflict` for a
 *   database that is in use or not empty
 */
export async function restoreBackup(file: FileHandle, options: RestoreOptions): Promise<RestoreResult> {
  const { url, version, keepAt, onProgress } = options
  const manifest = await checkArchive(file, onProgress)
  requireKnown(manifest)
  const missingKeys = missingOf(manifest, options)
  await using connection = await OneConnection.open(url, APPLICATION)
  const { client, db } = connection
  // A control plane that starts from now on waits for the end, and then finds what was restored.
  await client.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK])
  await untilAlone(db)
  const before = await listTables(client)
  if (before.length > 0) {
    await requireOurs(client, before)
    if (keepAt === undefined) throw notEmpty(before)
    const progress = onProgress === undefined ? {} : { onProgress: asKeeping(onProgress) }
    await backUpToFile(keepAt, { url, version, isGuarded: true, ...progress })
  }
  const restored = await connection.transaction(async () => {
    await rememberRevoked(client, before)
    await rememberHosts(client, before)
    await dropEverything(client)
    await migrateUpTo(db, manifest.migrations.at(-1) ?? '')
    // Migrations give back the limit that the role or the database has.
    await client.query('SET statement_timeout = 0')
    await fill(client, file, manifest, onProgress)
    onProgress?.('migrating', `to Wrenn ${version}`, 1)
    await migrateUp(db)
    await client.query('SET statement_timeout = 0')
    onProgress?.('checking', 'the audit trail', 1)
    const { entries, broken } = await verifyChains(db)
    return { auditEntries: entries, brokenChains: broken, ...(await settleRestored(connection, manifest, before)) }
  })
  await client.query('ANALYZE')
  return { manifest, missingKeys, keptAt: before.length > 0 ? keepAt : undefined, ...restored }
}

/** One that has just ended may still be in the server's list. */
async function untilAlone(db: Db): Promise<void> {
  const deadline = performance.now() + LEAVING_MS
  for (;;) {
    try {
      await requireNoControlPlane(db)
      return
    } catch (error) {
      if (!AppError.is(error, 'conflict') || performance.now() >= deadline) throw error
    }
    await delay(LOOK_AGAIN_MS)
  }
}

function asKeeping(onProgress: OnProgress): OnProgress {
  return (_, detail, fraction) => onProgress('keeping', detail, fraction)
}

function requireKnown({ migrations, version }: BackupManifest): void {
  const unknown = migrations.filter((name) => !migrationNames.includes(name))
  if (unknown.length > 0) {
    const message = `This backup is of a newer Wrenn (${version}): its migration ${unknown.at(-1)} is not known here. Restore it with that version.`
    throw new AppError('not_supported', message)
  }
  const expected = migrationNames.slice(0, migrations.length)
  if (expected.join() !== migrations.join()) throw damaged('its migrations are not those of any version')
}

/** @throws AppError `invalid_config` unless it is meant to do without */
function missingOf({ key_ids: ids }: BackupManifest, { keyring, withoutKeys }: RestoreOptions): readonly string[] {
  const missing = ids.filter((id) => !keyring.has(id))
  if (missing.length === 0 || withoutKeys) return missing
  const message =
    `The backup has secrets that were encrypted by ${missing.length === 1 ? 'the key' : 'the keys'} ${missing.join(', ')}, which is not at hand: ` +
    'put the file encryption-key of that platform back, or set WRENN_ENCRYPTION_KEY, or say --without-keys and lose them.'
  throw new AppError('invalid_config', message)
}

/** Another program's may have a table of migrations of this name, too: what is kept of it could not be put back. */
async function requireOurs(client: pg.Client, tables: readonly TableInfo[]): Promise<void> {
  const [first] = await readMigrations(client, tables)
  if (first === migrationNames[0]) return
  const message = `The database has tables (${tables.length}) and is none of Wrenn's. Name another one by DATABASE_URL.`
  throw new AppError('conflict', message)
}

function notEmpty(tables: readonly TableInfo[]): AppError {
  const message = `The database is not empty (${tables.length} tables). Say --replace to put the backup in its place; what is there is kept as a backup first.`
  return new AppError('conflict', message)
}

async function fill(
  client: pg.Client,
  file: FileHandle,
  manifest: BackupManifest,
  onProgress?: OnProgress,
): Promise<void> {
  await requireSameTables(client, manifest)
  const putBack = await dropForeignKeys(client)
  for (const { name } of manifest.tables) await client.query(`ALTER TABLE ${quoted(name)} DISABLE TRIGGER USER`)
  // Rows that migrations brought along are in the backup too, as they are by now.
  await client.query(`TRUNCATE ${manifest.tables.map(({ name }) => quoted(name)).join(', ')}`)
  await copyAll(client, file, manifest, onProgress)
  for (const { name } of manifest.tables) await client.query(`ALTER TABLE ${quoted(name)} ENABLE TRIGGER USER`)
  onProgress?.('checking', 'foreign keys', 1)
  for (const statement of putBack) await client.query(statement)
  for (const { table, column, last_value: last, is_called: isCalled } of manifest.sequences) {
    const values = [quoted(table), column, last, isCalled]
    await client.query('SELECT setval(pg_get_serial_sequence($1, $2)::regclass, $3, $4)', values)
  }
}

async function requireSameTables(client: pg.Client, manifest: BackupManifest): Promise<void> {
  const shape = (tables: readonly TableInfo[]): string =>
    tables
      .map(({ name, columns }) => `${name}(${columns.toSorted().join()})`)
      .toSorted()
      .join()
  const made = await listTables(client)
  if (shape(made) === shape(manifest.tables)) return
  throw damaged('its tables are not those of its version')
}

/** Reads the archive a second time, and checks it a second time: what was checked may have been changed since. */
async function copyAll(
  client: pg.Client,
  file: FileHandle,
  { tables }: BackupManifest,
  onProgress?: OnProgress,
): Promise<void> {
  const known = new Map(tables.map((table) => [table.name, table]))
  const parts = readTables(file, 'restoring', onProgress)
  let next = await parts.next()
  while (next.done !== true) {
    const { table: name } = next.value
    const table = known.get(name)
    if (table === undefined) throw damaged(`nothing is said of its table ${name}`)
    next = await copyTable(client, table, parts, next.value)
  }
}

/** Copies what comes of one table. @returns what comes after it */
async function copyTable(
  client: pg.Client,
  { name, columns, rows }: BackupTable,
  parts: AsyncGenerator<TablePart, BackupManifest>,
  first: TablePart,
): Promise<IteratorResult<TablePart, BackupManifest>> {
  let next: IteratorResult<TablePart, BackupManifest> = { done: false, value: first }
  const content = async function* (): AsyncGenerator<Buffer> {
    while (next.done !== true && next.value.table === name) {
      yield next.value.content
      next = await parts.next()
    }
  }
  const into = client.query(copyFrom(`COPY ${quoted(name)} (${columns.map(quoted).join(', ')}) FROM STDIN`))
  await pipeline(Readable.from(content()), into)
  if (into.rowCount !== rows) throw damaged(`the table ${name} has ${rows} rows, and ${into.rowCount} came of it`)
  return next
}
