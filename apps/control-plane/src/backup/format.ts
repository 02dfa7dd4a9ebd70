import { z } from 'zod'

/** Grows when an older `wrenn restore` could not read what is written. */
export const FORMAT = 1
/** First in an archive: what is coming. */
export const HEADER_FILE = 'backup.json'
/** Last in an archive: what it must have had. One without it was cut off. */
export const MANIFEST_FILE = 'manifest.json'
/** A table is in parts of this size, so that neither side holds a table in memory. */
export const PART_BYTES = 4 * 1024 * 1024
/** More than a part or a manifest of ours ever has. */
export const MAX_ENTRY_BYTES = 16 * PART_BYTES

/** Of a part of a table; they count from 1. */
export function partName(table: string, part: number): string {
  return `tables/${table}/${String(part).padStart(6, '0')}`
}

/** The inverse of {@link partName}; `undefined` for another file. */
export function parsePartName(name: string): { readonly table: string; readonly part: number } | undefined {
  const [, table, part] = /^tables\/([a-z0-9_]+)\/(\d{6,})$/.exec(name) ?? []
  return table === undefined ? undefined : { table, part: Number(part) }
}

/** What an archive says of itself at its begin. */
export const headerSchema = z.object({
  format: z.number().int(),
  /** Of the platform that made it. */
  version: z.string(),
  /** The moment that it shows. */
  taken_at: z.iso.datetime(),
  server_version: z.string(),
  /** Those that were applied, oldest first. */
  migrations: z.array(z.string()).min(1),
})
/** {@link headerSchema}, parsed. */
export type BackupHeader = z.infer<typeof headerSchema>

const tableSchema = z.object({
  name: z.string(),
  columns: z.array(z.string()),
  rows: z.number().int(),
  bytes: z.number().int(),
  /** Of the rows in the text format of COPY, uncompressed. */
  sha256: z.string(),
})
/** A table as the archive has it. */
export type BackupTable = z.infer<typeof tableSchema>

const sequenceSchema = z.object({
  table: z.string(),
  column: z.string(),
  last_value: z.number().int(),
  is_called: z.boolean(),
})
/** How far a sequence of a column has counted. */
export type BackupSequence = z.infer<typeof sequenceSchema>

/** What an archive says at its end. */
export const manifestSchema = headerSchema.extend({
  tables: z.array(tableSchema),
  sequences: z.array(sequenceSchema),
  /** Ids of the keys that secrets in it were encrypted by. */
  key_ids: z.array(z.string()),
})
/** {@link manifestSchema}, parsed. */
export type BackupManifest = z.infer<typeof manifestSchema>

/** Tells how far something is; `fraction` is from 0 to 1. */
export type OnProgress = (step: string, detail: string, fraction: number) => void
