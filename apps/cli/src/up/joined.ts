import { readFile } from 'node:fs/promises'
import { AppError, errorText, isErrno } from '@wrenn/base'
import { z } from 'zod'
import type { Layout } from './layout.js'

/** Of what the host agent keeps there, all that others need. */
const identitySchema = z.object({ url: z.string() })

/** The platform that this machine is a host of; `undefined` on one that has not joined. @throws AppError `invalid_config` */
export async function readJoinedUrl({ hostIdentityFile }: Layout): Promise<string | undefined> {
  try {
    return identitySchema.parse(JSON.parse(await readFile(hostIdentityFile, 'utf8'))).url
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    if (isErrno(error, 'EACCES')) throw new AppError('forbidden', `${hostIdentityFile} is root's: run this with sudo.`)
    throw new AppError('invalid_config', `${hostIdentityFile} cannot be read: ${errorText(error)}.`)
  }
}
