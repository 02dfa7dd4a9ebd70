import type { IncomingMessage, ServerResponse } from 'node:http'
import { AppError, verifySignature } from '@wrenn/base'
import type { UploadSite } from '../files/upload.js'
import type { Caller, Identity } from '../identity/identity.js'
import type { GuestUser } from '../identity/users.js'
import { clientPath } from '../process/environment.js'
import { readFile } from './files-read.js'
import { writeFiles } from './files-write.js'

interface FilesContext extends UploadSite {
  readonly identity: Identity
}

/** `/files`: the one route that a signed URL opens without any header. `known` is who asks, if that is known without one. */
export async function handleFiles(
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
  known: Caller | undefined,
  { identity, ...site }: FilesContext,
): Promise<void> {
  const isWrite = request.method === 'POST' || request.method === 'PUT'
  const operation = isWrite ? 'write' : 'read'
  const path = query.get('path') ?? undefined
  const username = query.get('username') ?? ''
  if (known === undefined) {
    const expiration = query.get('signature_expiration') ?? undefined
    const signed = { path: path ?? '', operation, user: username, expiration } as const
    verifySignature(query.get('signature') ?? undefined, signed, identity.values.accessToken)
  }
  const caller = known ?? 'client'
  // A signature is for the user that it was made with, whatever a header says.
  const user = username === '' && known !== undefined ? identity.userOf(request.headers) : identity.userNamed(username)
  const resolve = (each: string): string => resolvePath(each, user, identity)
  if (request.method === 'GET' || request.method === 'HEAD') {
    await readFile(request, response, { path: resolve(path ?? ''), caller, user, versions: site.versions })
  } else if (isWrite) {
    await writeFiles(request, response, { caller, user, path, mode: modeOf(query), resolve, site })
  } else {
    throw new AppError('method_not_allowed', 'Use GET, HEAD, POST or PUT on /files.')
  }
}

function resolvePath(path: string, user: GuestUser, identity: Identity): string {
  return clientPath(path, user, identity.values.defaultCwd)
}

function modeOf(query: URLSearchParams): number | undefined {
  const text = query.get('mode')
  if (text === null || text === '') return undefined
  if (!/^[0-7]{3,4}$/.test(text)) throw new AppError('invalid_request', 'mode must be three or four octal digits.')
  return Number.parseInt(text, 8)
}
