import { mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { AppError, DirectoryLock, isErrno, waitFor, writeFileAtomic } from '@wrenn/base'
import { z } from 'zod'

const RETRY_MS = 50
const LOCK_WITHIN_MS = 30_000

const loginSchema = z.object({
  session_id: z.string(),
  user_id: z.string(),
  email: z.string(),
  token: z.string(),
  expires_at: z.string(),
  refresh_token: z.string(),
})
/** A person's session on one platform. */
export type Login = z.infer<typeof loginSchema>

const fileSchema = z.object({ version: z.literal(1), logins: z.record(z.string(), loginSchema) })

/** The sessions of this user of the machine, one for each platform, in a file that only they can read. */
export class Logins {
  readonly #file: string

  constructor(file: string) {
    this.#file = file
  }

  /** @throws AppError `invalid_config` when the file is none of ours */
  async find(apiUrl: string): Promise<Login | undefined> {
    return (await this.#read())[apiUrl]
  }

  /** Changes the session on one platform, one process after the other: `undefined` forgets it. Gives what is there then. */
  async change(
    apiUrl: string,
    to: (current: Login | undefined) => Promise<Login | undefined>,
  ): Promise<Login | undefined> {
    const dir = dirname(this.#file)
    await mkdir(dir, { recursive: true, mode: 0o700 })
    await using _lock = await lock(dir)
    const logins = await this.#read()
    const current = logins[apiUrl]
    const next = await to(current)
    if (next === current) return current
    const { [apiUrl]: _, ...others } = logins
    const all = next === undefined ? others : { ...others, [apiUrl]: next }
    await writeFileAtomic(this.#file, `${JSON.stringify({ version: 1, logins: all }, undefined, 2)}\n`)
    return next
  }

  async #read(): Promise<Readonly<Record<string, Login | undefined>>> {
    try {
      return fileSchema.parse(JSON.parse(await readFile(this.#file, 'utf8'))).logins
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR')) return {}
      if (isErrno(error)) throw error
      throw new AppError(
        'invalid_config',
        `${this.#file} is not what \`wrenn login\` writes; remove it and log in again.`,
      )
    }
  }
}

/** A holder is done soon: it writes a file, and asks the platform for tokens at most. */
async function lock(dir: string): Promise<DirectoryLock> {
  const take = async (): Promise<DirectoryLock | undefined> => {
    try {
      return await DirectoryLock.take('login', dir)
    } catch (error) {
      if (AppError.is(error, 'conflict')) return undefined
      throw error
    }
  }
  return await waitFor(take, {
    timeoutMs: LOCK_WITHIN_MS,
    intervalMs: RETRY_MS,
    what: 'another `wrenn` to let go of the logins',
  })
}
