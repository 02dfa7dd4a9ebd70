import { open, readFile, stat } from 'node:fs/promises'
import { isErrno, type Logger } from '@wrenn/base'
import { scopes } from '@wrenn/protocol'
import { addKey, hasAnyKey } from '../../store/api-keys.js'
import { writeAudit } from '../../store/audit.js'
import { alone, type Db } from '../../store/database.js'
import { createTeam } from '../../store/teams.js'
import { newApiKey, storedForm } from './api-keys.js'
import { keyEntry } from './key-admin.js'

/**
 * Makes a team and its first key, with all scopes, when the database has none, and leaves the key in `file` (0600). A key that is
 * already in the file is taken, so that a lost database or a crash between the two steps never invalidates it. Several processes may try
 * at once: one makes it.
 */
export async function ensureFirstKey(db: Db, file: string, logger: Logger): Promise<void> {
  await alone(db, () => makeFirstKey(db, file, logger))
}

async function makeFirstKey(db: Db, file: string, logger: Logger): Promise<void> {
  if (await hasAnyKey(db)) {
    if ((await existingKey(file)) === undefined) logger.warn({ file }, 'api_key.file_missing')
    return
  }
  const kept = await existingKey(file)
  const key = kept ?? newApiKey()
  if (kept === undefined) await writeKey(file, key)
  const teamId = await db.transaction().execute(async (tx) => {
    const team = await createTeam(tx, 'Default')
    const row = await addKey(tx, { teamId: team, name: 'First key', scopes, ...storedForm(key) })
    if (row !== undefined) await writeAudit(tx, keyEntry('api_key.create', row, undefined))
    return team
  })
  logger.info({ file, teamId }, 'api_key.created')
}

/** In place: its folder need not be ours to write. Half a key that a crash leaves is no key, and the next start writes anew. */
async function writeKey(path: string, key: string): Promise<void> {
  await using file = await open(path, 'w', 0o600)
  await file.writeFile(`${key}\n`)
  await file.sync()
}

async function existingKey(file: string): Promise<string | undefined> {
  try {
    await stat(file)
    const key = (await readFile(file, 'utf8')).trim()
    return /^wrn_[0-9A-Za-z]{32}$/.test(key) ? key : undefined
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}
