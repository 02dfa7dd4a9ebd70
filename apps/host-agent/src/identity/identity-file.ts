import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, isErrno, writeFileAtomic } from '@wrenn/base'
import { z } from 'zod'

/** Below the platform's directory; theirs who are root alone. */
export const IDENTITY_FILE = 'host-identity.json'
export const JOINING_FILE = 'host-joining.json'

const pendingSchema = z.object({ key: z.string(), request: z.string() })
/** A key whose certificate was asked for and has not come. Asked again, it is the same key, so an answer that was lost costs nothing. */
export type PendingKey = z.infer<typeof pendingSchema>

const identitySchema = z.object({
  version: z.literal(1),
  hostId: z.string(),
  /** Of the platform. */
  url: z.string(),
  /** Authorities of the platform's own certificate, as PEM, where public ones do not do. */
  urlAuthorities: z.string().optional(),
  /** `address:port`, where the host agent listens. */
  listen: z.string(),
  /** All as PEM. */
  key: z.string(),
  certificate: z.string(),
  authorities: z.string(),
  refreshToken: z.string(),
  pending: pendingSchema.optional(),
})
/** By what this machine proves that it is a host of a platform, and whom it lets call it. */
export type HostIdentity = z.infer<typeof identitySchema>

const joiningSchema = pendingSchema.extend({ token: z.string() })

/** `undefined` on a machine that has not joined. @throws AppError `invalid_config` when it cannot be read */
export async function readIdentity(dir: string): Promise<HostIdentity | undefined> {
  return await read(join(dir, IDENTITY_FILE), identitySchema)
}

export async function writeIdentity(dir: string, identity: HostIdentity): Promise<void> {
  await writeFileAtomic(join(dir, IDENTITY_FILE), `${JSON.stringify(identity, undefined, 2)}\n`, 0o600)
}

/** What an earlier try with this token has made. */
export async function readJoining(dir: string, token: string): Promise<PendingKey | undefined> {
  const found = await read(join(dir, JOINING_FILE), joiningSchema)
  return found?.token === token ? found : undefined
}

export async function writeJoining(dir: string, token: string, pending: PendingKey): Promise<void> {
  await writeFileAtomic(join(dir, JOINING_FILE), `${JSON.stringify({ ...pending, token })}\n`, 0o600)
}

export async function forgetJoining(dir: string): Promise<void> {
  await rm(join(dir, JOINING_FILE), { force: true })
}

async function read<Schema extends z.ZodType>(path: string, schema: Schema): Promise<z.output<Schema> | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    const why =
      error instanceof z.ZodError || error instanceof SyntaxError ? 'it is not what was written' : errorText(error)
    throw new AppError('invalid_config', `${path} cannot be read: ${why}. \`wrenn host join\` makes it anew.`)
  }
}
