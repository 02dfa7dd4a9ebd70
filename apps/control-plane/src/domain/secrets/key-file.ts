import { randomBytes } from 'node:crypto'
import { open, readFile } from 'node:fs/promises'
import { AppError, isErrno, type Logger } from '@wrenn/base'
import { parseKey } from './keyring.js'

/**
 * The keys of a file, one a line, the one that encrypts first. A file that is empty, or not there, gets one (0600), in place: its folder need not
 * be ours to write.
 * @throws AppError `invalid_config` for a file with anything else in it: another key would lose what this one should open
 */
export async function readKeyFile(path: string, logger: Logger): Promise<Buffer[]> {
  const keys = await findKeys(path)
  return keys.length === 0 ? [await makeKey(path, logger)] : keys
}

/** The same, but none where there is none. @throws as {@link readKeyFile} */
export async function findKeys(path: string): Promise<Buffer[]> {
  const lines = (await textOf(path)).split('\n').map((line) => line.trim())
  const given = lines.filter((line) => line !== '')
  const keys = given.map(parseKey).filter((key) => key !== undefined)
  if (keys.length === given.length) return keys
  throw new AppError('invalid_config', `${path} has a line that is no key: each is 64 hexadecimal digits.`)
}

async function makeKey(path: string, logger: Logger): Promise<Buffer> {
  const key = randomBytes(32)
  await using file = await open(path, 'w', 0o600)
  await file.writeFile(`${key.toString('hex')}\n`)
  await file.sync()
  logger.info({ file: path }, 'encryption_key.created')
  return key
}

async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return ''
    throw error
  }
}
