import { write } from 'node:fs'
import { Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { AppError, isErrno } from '@wrenn/base'
import type { ControlPlaneConfig } from '../config.js'
import { findKeys, Keyring } from '../domain/secrets/index.js'
import { VERSION } from '../version.js'
import { backUp, backUpToFile } from './backup.js'
import { checkArchive } from './check.js'
import type { BackupManifest, OnProgress } from './format.js'
import { openArchive, restoreBackup } from './restore.js'

/** Of the archive, for a caller that wants it on a stream of its own. */
const ARCHIVE_FD = 3
const LOOK_AGAIN_MS = 10

const writeSome = promisify(write)

type Settings = Pick<ControlPlaneConfig, 'databaseUrl' | 'encryptionKeys' | 'encryptionKeyFile'>

/** `backup PATH`; without a path the archive goes to file descriptor 3. */
export async function runBackup(
  { databaseUrl: url }: Settings,
  [path]: readonly string[],
  onProgress: OnProgress,
): Promise<object> {
  const options = { url, version: VERSION, onProgress }
  const result = path === undefined ? await backUp(writerTo(ARCHIVE_FD), options) : await backUpToFile(path, options)
  return { ...sumOf(result.manifest), archiveBytes: result.bytes, archiveSha256: result.sha256 }
}

/** Node.js has made a pipe that was our caller's standard output one that does not block, and its own streams give such a one up when its reader is slow. */
function writerTo(fd: number): Writable {
  const writeAll = async (chunk: Buffer): Promise<void> => {
    for (let at = 0; at < chunk.length && !writer.destroyed; ) {
      try {
        at += (await writeSome(fd, chunk, at)).bytesWritten
      } catch (error) {
        if (!isErrno(error, 'EAGAIN')) throw error
        await delay(LOOK_AGAIN_MS)
      }
    }
  }
  const writer = new Writable({
    write: (chunk: Buffer, _, done) => {
      writeAll(chunk).then(() => done(), done)
    },
  })
  return writer
}

/** `verify-backup PATH`: touches no database. */
export async function runVerify(
  settings: Settings,
  [path = '']: readonly string[],
  onProgress: OnProgress,
): Promise<object> {
  await using file = await openArchive(path)
  const manifest = await checkArchive(file, onProgress)
  const keyring = await keyringOf(settings)
  return { ...sumOf(manifest), missingKeys: manifest.key_ids.filter((id) => !keyring.has(id)) }
}

/** `restore PATH KEEP-AT|- [--without-keys]`; `-`: only an empty database is filled. */
export async function runRestore(
  settings: Settings,
  [path = '', keepAt, option]: readonly string[],
  onProgress: OnProgress,
): Promise<object> {
  if (keepAt === undefined) throw new AppError('invalid_request', 'Say where what is replaced is kept, or `-`.')
  await using file = await openArchive(path)
  const { manifest, ...result } = await restoreBackup(file, {
    ...{ url: settings.databaseUrl, version: VERSION, onProgress, keyring: await keyringOf(settings) },
    keepAt: keepAt === '-' ? undefined : keepAt,
    withoutKeys: option === '--without-keys',
  })
  return { ...sumOf(manifest), ...result }
}

/** Makes no key: what was encrypted would not open by it. */
async function keyringOf({ encryptionKeys, encryptionKeyFile: file }: Settings): Promise<Keyring> {
  return new Keyring([...encryptionKeys, ...(file === undefined ? [] : await findKeys(file))])
}

function sumOf({ tables, migrations, ...manifest }: BackupManifest): object {
  const sum = (of: (table: (typeof tables)[number]) => number): number =>
    tables.reduce((all, each) => all + of(each), 0)
  return {
    ...{ takenAt: manifest.taken_at, version: manifest.version, serverVersion: manifest.server_version },
    ...{ migration: migrations.at(-1), keyIds: manifest.key_ids },
    ...{ tables: tables.length, rows: sum(({ rows }) => rows), bytes: sum(({ bytes }) => bytes) },
  }
}
