import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { AppError } from '@wrenn/base'

const OTHERS_SEARCH = 0o001

/**
 * Guests run as users of their own and open their files by full path, so each of them must be able to pass through `dir`.
 * @throws AppError `invalid_config` naming the folder that is closed and the command that opens it
 */
export async function requireSearchable(dir: string): Promise<void> {
  for (let path = dir; ; path = dirname(path)) {
    if (((await stat(path)).mode & OTHERS_SEARCH) === 0) {
      const fix = path === dir ? `chmod o+x ${path}` : `Choose another WRENN_DIR, or: chmod o+x ${path}`
      throw new AppError('invalid_config', `${path} is closed to the users that capsules run as. ${fix}`)
    }
    if (path === dirname(path)) return
  }
}
