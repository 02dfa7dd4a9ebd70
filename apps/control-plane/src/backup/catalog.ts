import pg from 'pg'
import type { BackupSequence } from './format.js'

/** Kysely's own, made with the schema and never of interest to another database. */
const LOCK_TABLE = 'kysely_migration_lock'
/** What has secrets, and where: each begins with the id of its key. */
const SEALED: readonly (readonly [table: string, column: string])[] = [
  ['capsules', 'egress_rules'],
  ['channels', 'config'],
  ['host_authorities', 'key'],
  ['registry_logins', 'password'],
  ['secrets', 'value'],
  ['stored_states', 'sealed_by'],
  ['totp_factors', 'secret'],
]

/** A table and the columns that its rows are made of. */
export interface TableInfo {
  readonly name: string
  readonly columns: readonly string[]
}

/** A name as SQL has it. */
export const quoted = (name: string): string => pg.escapeIdentifier(name)

/** Tables of the platform, by name; not those of extensions. */
export async function listTables(client: pg.Client): Promise<readonly TableInfo[]> {
  const { rows } = await client.query<TableInfo>(
    `SELECT c.relname AS name,
      (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns
    FROM pg_class AS c
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND c.relname <> $1
      AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
    ORDER BY c.relname`,
    [LOCK_TABLE],
  )
  return rows
}

/** How far each column that counts has counted; to be asked after the rows were read, for counting is in no transaction. */
export async function readSequences(client: pg.Client): Promise<BackupSequence[]> {
  const { rows } = await client.query<{ sequence: string; table: string; column: string }>(
    `SELECT s.relname AS sequence, t.relname AS "table", a.attname AS "column"
    FROM pg_class AS s
    JOIN pg_depend AS d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
      AND d.deptype IN ('a', 'i')
    JOIN pg_class AS t ON t.oid = d.refobjid
    JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    WHERE s.relkind = 'S' AND s.relnamespace = current_schema()::regnamespace
    ORDER BY t.relname, a.attname`,
  )
  const sequences: BackupSequence[] = []
  for (const { sequence, table, column } of rows) {
    const at = await client.query<Pick<BackupSequence, 'last_value' | 'is_called'>>(
      `SELECT last_value, is_called FROM ${quoted(sequence)}`,
    )
    const [state] = at.rows
    if (state !== undefined) sequences.push({ table, column, ...state })
  }
  return sequences
}

/** Ids of the keys by which secrets were encrypted. */
export async function readKeyIds(client: pg.Client, tables: readonly TableInfo[]): Promise<string[]> {
  const ids = new Set<string>()
  for (const [table, column] of SEALED) {
    if (!tables.some(({ name, columns }) => name === table && columns.includes(column))) continue
    const { rows } = await client.query<{ id: string }>(
      `SELECT DISTINCT split_part(${quoted(column)}, '.', 2) AS id FROM ${quoted(table)}
      WHERE ${quoted(column)} LIKE 'v1.________.%'`,
    )
    for (const { id } of rows) ids.add(id)
  }
  return [...ids].sort()
}

/** Names of the migrations that were applied, oldest first; none where the platform was never. */
export async function readMigrations(client: pg.Client, tables: readonly TableInfo[]): Promise<string[]> {
  if (!tables.some(({ name }) => name === 'kysely_migration')) return []
  const { rows } = await client.query<{ name: string }>('SELECT name FROM kysely_migration ORDER BY name')
  return rows.map(({ name }) => name)
}

/** Takes all foreign keys away. @returns what puts them back, which checks all rows */
export async function dropForeignKeys(client: pg.Client): Promise<readonly string[]> {
  const { rows } = await client.query<{ table: string; name: string; definition: string }>(
    `SELECT t.relname AS "table", c.conname AS name, pg_get_constraintdef(c.oid) AS definition
    FROM pg_constraint AS c JOIN pg_class AS t ON t.oid = c.conrelid
    WHERE c.contype = 'f' AND t.relnamespace = current_schema()::regnamespace`,
  )
  for (const { table, name } of rows) {
    await client.query(`ALTER TABLE ${quoted(table)} DROP CONSTRAINT ${quoted(name)}`)
  }
  return rows.map(
    ({ table, name, definition }) => `ALTER TABLE ${quoted(table)} ADD CONSTRAINT ${quoted(name)} ${definition}`,
  )
}

/** Empties the schema of what is the platform's: tables, with all that hangs on them, and functions. What extensions brought stays. */
export async function dropEverything(client: pg.Client): Promise<void> {
  const own = (catalog: string, oid: string): string =>
    `NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = '${catalog}'::regclass AND d.objid = ${oid} AND d.deptype = 'e')`
  const tables = await client.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_class AS c
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND ${own('pg_class', 'c.oid')}`,
  )
  for (const { name } of tables.rows) await client.query(`DROP TABLE ${quoted(name)} CASCADE`)
  const functions = await client.query<{ signature: string }>(
    `SELECT p.oid::regprocedure::text AS signature FROM pg_proc AS p
    WHERE p.pronamespace = current_schema()::regnamespace AND p.prokind = 'f' AND ${own('pg_proc', 'p.oid')}`,
  )
  for (const { signature } of functions.rows) await client.query(`DROP FUNCTION IF EXISTS ${signature} CASCADE`)
}
