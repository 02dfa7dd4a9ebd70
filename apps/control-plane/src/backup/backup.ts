import { createHash, randomBytes } from 'node:crypto'
import { type FileHandle, lstat, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Transform, Writable } from 'node:stream'
import { AppError, isErrno } from '@wrenn/base'
import type pg from 'pg'
import { to as copyTo } from 'pg-copy-streams'
import { MIGRATION_LOCK } from '../store/database.js'
import { OneConnection } from '../store/one-connection.js'
import { ArchiveWriter } from './archive-writer.js'
import { listTables, quoted, readKeyIds, readMigrations, readSequences, type TableInfo } from './catalog.js'
import {
  type BackupHeader,
  type BackupManifest,
  type BackupTable,
  FORMAT,
  HEADER_FILE,
  MANIFEST_FILE,
  type OnProgress,
  PART_BYTES,
  partName,
} from './format.js'

const APPLICATION = 'wrenn-backup'
const NEWLINE = 0x0a
/** As text, values look the same to every server that reads them. */
const TEXT_FORMATS =
  "SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 3"

interface BackupOptions {
  readonly url: string
  /** Of the platform. */
  readonly version: string
  /** The caller keeps starts away until it has ended. @default false */
  readonly isGuarded?: boolean
  readonly onProgress?: OnProgress
}

/** An archive that was written. */
export interface BackupResult {
  readonly manifest: BackupManifest
  /** Of the archive. */
  readonly bytes: number
  readonly sha256: string
}

/**
 * Writes the database, as it is at one moment, into an archive at `path`: beside it first, so that what is there is whole. The platform may
 * run; its own file, readable by its owner alone.
 * @throws AppError `conflict` for a file that is there
 */
export async function backUpToFile(path: string, options: BackupOptions): Promise<BackupResult> {
  await requireNoFile(path)
  const beside = `${path}.${randomBytes(4).toString('hex')}.tmp`
  try {
    await using file = await open(beside, 'wx', 0o600)
    const result = await backUp(writerOf(file), options)
    await file.sync()
    await requireNoFile(path)
    await rename(beside, path)
    await using folder = await open(dirname(path), 'r')
    await folder.sync()
    return result
  } catch (error) {
    await rm(beside, { force: true })
    throw error
  }
}

/** Leaves the file open. */
function writerOf(file: FileHandle): Writable {
  return new Writable({
    write: (chunk: Buffer, _, done) => {
      file.writeFile(chunk).then(() => done(), done)
    },
  })
}

async function requireNoFile(path: string): Promise<void> {
  const found = await lstat(path).catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  })
  if (found === undefined) return
  throw new AppError('conflict', `${path} is there already; a backup replaces nothing.`)
}

/** Writes the same into `to`, which ends with it. */
export async function backUp(to: Writable, options: BackupOptions): Promise<BackupResult> {
  const takenAt = new Date()
  takenAt.setMilliseconds(0)
  const measured = new Measured()
  const archive = new ArchiveWriter([measured, to], takenAt)
  try {
    await using connection = await OneConnection.open(options.url, APPLICATION)
    const manifest = await writeAll(connection, archive, options)
    await archive.finish()
    return { manifest, bytes: measured.bytes, sha256: measured.digest() }
  } catch (error) {
    await archive.abandon(error)
    throw error
  }
}

/**
 * In one snapshot, of tables whose columns nobody changes meanwhile: a start, which may migrate, waits until all of them are held, and no
 * longer when it has nothing to migrate.
 */
async function writeAll(
  connection: OneConnection,
  archive: ArchiveWriter,
  options: BackupOptions,
): Promise<BackupManifest> {
  const { client } = connection
  const { isGuarded = false } = options
  if (!isGuarded) await client.query('SELECT pg_advisory_lock_shared($1)', [MIGRATION_LOCK])
  // Nothing ends it but the end of the connection: one whose COPY was broken off answers no statement any more.
  await client.query(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ${TEXT_FORMATS}`)
  const tables = await listTables(client)
  if (tables.length === 0) throw new AppError('not_found', 'There is nothing to back up: the database has no tables.')
  await client.query(`LOCK TABLE ${tables.map(({ name }) => quoted(name)).join(', ')} IN ACCESS SHARE MODE`)
  if (!isGuarded) await client.query('SELECT pg_advisory_unlock_shared($1)', [MIGRATION_LOCK])
  return await writeTables(client, tables, archive, options)
}

async function writeTables(
  client: pg.Client,
  tables: readonly TableInfo[],
  archive: ArchiveWriter,
  { version, onProgress }: BackupOptions,
): Promise<BackupManifest> {
  const header = await headerOf(client, tables, version)
  await archive.addJson(HEADER_FILE, header)
  const written: BackupTable[] = []
  for (const [at, table] of tables.entries()) {
    onProgress?.('reading', table.name, at / tables.length)
    written.push(await writeTable(client, table, archive))
  }
  const manifest: BackupManifest = {
    ...header,
    tables: written,
    sequences: await readSequences(client),
    key_ids: await readKeyIds(client, tables),
  }
  await archive.addJson(MANIFEST_FILE, manifest)
  return manifest
}

async function headerOf(client: pg.Client, tables: readonly TableInfo[], version: string): Promise<BackupHeader> {
  const { rows } = await client.query<{ at: Date; server: string }>(
    "SELECT now() AS at, current_setting('server_version') AS server",
  )
  const [facts] = rows
  if (facts === undefined) throw new Error('a select without a row')
  const migrations = await readMigrations(client, tables)
  if (migrations.length === 0)
    throw new AppError('not_found', 'There is nothing to back up: no platform was ever here.')
  return { format: FORMAT, version, taken_at: facts.at.toISOString(), server_version: facts.server, migrations }
}

async function writeTable(client: pg.Client, table: TableInfo, archive: ArchiveWriter): Promise<BackupTable> {
  const { name, columns } = table
  const rowsOf = client.query(copyTo(`COPY ${quoted(name)} (${columns.map(quoted).join(', ')}) TO STDOUT`))
  const hash = createHash('sha256')
  let [bytes, rows, parts, held] = [0, 0, 0, 0]
  let chunks: Buffer[] = []
  const flush = async (): Promise<void> => {
    parts += 1
    await archive.add(partName(name, parts), Buffer.concat(chunks))
    chunks = []
    held = 0
  }
  for await (const chunk of rowsOf as AsyncIterable<Buffer>) {
    hash.update(chunk)
    bytes += chunk.length
    rows += countRows(chunk)
    chunks.push(chunk)
    held += chunk.length
    if (held >= PART_BYTES) await flush()
  }
  if (held > 0) await flush()
  return { name, columns: [...columns], rows, bytes, sha256: hash.digest('hex') }
}

/** Each row of COPY's text format is a line; line ends inside of values are written otherwise. */
export function countRows(chunk: Uint8Array): number {
  let count = 0
  for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, at + 1)) count += 1
  return count
}

/** Hands on what it is given, and knows what that was. */
class Measured extends Transform {
  readonly #hash = createHash('sha256')
  bytes = 0

  override _transform(chunk: Buffer, _: BufferEncoding, done: (error: null, chunk: Buffer) => void): void {
    this.#hash.update(chunk)
    this.bytes += chunk.length
    done(null, chunk)
  }

  digest(): string {
    return this.#hash.digest('hex')
  }
}
