import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, isErrno, writeFileAtomic } from '@wrenn/base'

/** Below the platform's directory. */
export const HOST_ID_FILE = 'host-id'

/** `undefined` on a machine that was no host yet. @throws AppError `invalid_config` */
export async function readHostId(dir: string): Promise<string | undefined> {
  const path = join(dir, HOST_ID_FILE)
  try {
    return (await readFile(path, 'utf8')).trim()
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw new AppError('invalid_config', `${path} cannot be read: ${errorText(error)}.`)
  }
}

export async function writeHostId(dir: string, id: string): Promise<void> {
  await writeFileAtomic(join(dir, HOST_ID_FILE), `${id}\n`, 0o644)
}
