import { createHash, type Hash } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { AppError } from '@wrenn/base'
import { type ArchiveEntry, damaged, readArchive } from './archive-reader.js'
import { countRows } from './backup.js'
import {
  type BackupHeader,
  type BackupManifest,
  FORMAT,
  HEADER_FILE,
  headerSchema,
  MANIFEST_FILE,
  manifestSchema,
  type OnProgress,
  parsePartName,
} from './format.js'

interface Seen {
  readonly hash: Hash
  bytes: number
  rows: number
  parts: number
}

/** What {@link readTables} gives as it goes on: parts come in order, table after table. */
export interface TablePart {
  readonly table: string
  readonly content: Buffer
}

/**
 * The tables of an archive, part after part, and when all were there its manifest, against which every byte was checked.
 * @throws AppError `invalid_request` for what is damaged or was cut off, `not_supported` for what a newer platform wrote
 */
export async function* readTables(
  file: FileHandle,
  step: string,
  onProgress?: OnProgress,
): AsyncGenerator<TablePart, BackupManifest> {
  const { size } = await file.stat()
  let read = 0
  const entries = readArchive(file, (bytes) => {
    read = bytes
  })
  const seen = new Map<string, Seen>()
  let header: BackupHeader | undefined
  let manifest: BackupManifest | undefined
  for await (const { name, content } of entries) {
    if (manifest !== undefined) throw damaged(`${name} comes after its end`)
    if (header === undefined) header = readHeader({ name, content })
    else if (name === MANIFEST_FILE) manifest = parsed(manifestSchema, content, name)
    else {
      const table = note(seen, name, content)
      onProgress?.(step, table, size === 0 ? 1 : Math.min(1, read / size))
      yield { table, content }
    }
  }
  if (manifest === undefined) throw damaged('its end is missing')
  compare(manifest, seen)
  return manifest
}

/** Reads a whole archive and checks it. */
export async function checkArchive(file: FileHandle, onProgress?: OnProgress): Promise<BackupManifest> {
  const parts = readTables(file, 'checking', onProgress)
  for (;;) {
    const next = await parts.next()
    if (next.done === true) return next.value
  }
}

function readHeader({ name, content }: ArchiveEntry): BackupHeader {
  if (name !== HEADER_FILE) throw damaged(`it begins with ${name}`)
  const header = parsed(headerSchema, content, name)
  if (header.format <= FORMAT) return header
  throw new AppError(
    'not_supported',
    `This backup is of Wrenn ${header.version} and has a form that this version does not know: restore it with that one.`,
  )
}

function note(seen: Map<string, Seen>, name: string, content: Buffer): string {
  const part = parsePartName(name)
  if (part === undefined) throw damaged(`it has a file ${JSON.stringify(name)}`)
  const table = seen.get(part.table) ?? { hash: createHash('sha256'), bytes: 0, rows: 0, parts: 0 }
  seen.set(part.table, table)
  table.parts += 1
  if (table.parts !== part.part) throw damaged(`part ${table.parts} of the table ${part.table} is missing`)
  table.hash.update(content)
  table.bytes += content.length
  table.rows += countRows(content)
  return part.table
}

function compare({ tables }: BackupManifest, seen: ReadonlyMap<string, Seen>): void {
  const empty = createHash('sha256').digest('hex')
  for (const { name, bytes, rows, sha256 } of tables) {
    const found = seen.get(name)
    const isSame =
      bytes === (found?.bytes ?? 0) && rows === (found?.rows ?? 0) && sha256 === (found?.hash.digest('hex') ?? empty)
    if (!isSame) throw damaged(`the table ${name} is not as it was written`)
  }
  const known = new Set(tables.map(({ name }) => name))
  for (const name of seen.keys()) if (!known.has(name)) throw damaged(`nothing is said of its table ${name}`)
}

function parsed<T>(schema: { safeParse(value: unknown): { data?: T } }, content: Buffer, name: string): T {
  let value: unknown
  try {
    value = JSON.parse(content.toString('utf8'))
  } catch {
    // Told below.
  }
  const { data } = schema.safeParse(value)
  if (data === undefined) throw damaged(`${name} cannot be read`)
  return data
}
