import { open, readFile } from 'node:fs/promises'
import { AppError, isErrno, type Logger } from '@wrenn/base'
import type { SetUpInput } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { dropEmailTokens } from '../../store/email-tokens.js'
import type { UserRow } from '../../store/schema.js'
import { dropSetUpCode, isSetUpCode, setSetUpCode } from '../../store/set-up-codes.js'
import { addUser, changeUser, countActive, findUserByEmail, lockPeople } from '../../store/users.js'
import { type From, personActor } from './from.js'
import type { Passwords } from './passwords.js'
import type { Opened, Sessions } from './sessions.js'
import { findOrFoundTeam } from './teams.js'
import { placeOf, type Throttle } from './throttle.js'
import { digestOf, newCode } from './tokens.js'

interface SetUpDeps {
  readonly db: Db
  readonly passwords: Passwords
  readonly sessions: Sessions
  readonly throttle: Throttle
  readonly logger: Logger
}

/** How the first account comes to be: by a code that only who has started the platform gets. */
export class SetUp {
  readonly #deps: SetUpDeps

  constructor(deps: SetUpDeps) {
    this.#deps = deps
  }

  /**
   * Leaves a new code in `file` while nobody has an account, and else nothing. One that is there and still good stays: whoever wants another
   * at each start empties the file before.
   */
  async prepare(file: string): Promise<void> {
    const kept = await readCode(file)
    await this.#deps.db.transaction().execute(async (tx) => {
      await lockPeople(tx)
      if ((await countActive(tx)).all > 0) {
        await dropSetUpCode(tx)
        await writeCode(file, '')
        return
      }
      if (kept !== undefined && (await isSetUpCode(tx, digestOf(kept)))) return
      const code = newCode()
      await writeCode(file, code)
      await setSetUpCode(tx, digestOf(code))
      this.#deps.logger.info({ file }, 'set_up.code_written')
    })
  }

  /**
   * Makes the first account: active, admin of the platform, owner of the team that was there before, and logged in.
   * @throws AppError `invalid_token`, `conflict` once there is an account, `email_taken`, `limit_exceeded`
   */
  async finish({ code, email, name, password }: SetUpInput, from: From): Promise<Opened> {
    const { db, passwords, sessions, throttle } = this.#deps
    await throttle.count('setUpPlace', placeOf(from.ip))
    await refuse(db, code)
    const passwordHash = await passwords.hash(password)
    return await db.transaction().execute(async (tx) => {
      await lockPeople(tx)
      await refuse(tx, code)
      await dropSetUpCode(tx)
      const { id } = await pendingAccount(tx, email, name)
      const change = { status: 'active', is_admin: true, password_hash: passwordHash, name } as const
      const user = await changeUser(tx, id, change)
      if (user === undefined) throw new Error('an account is gone whose row is held')
      await dropEmailTokens(tx, id, 'activation')
      const { teamId } = await findOrFoundTeam(tx, user, true)
      await writeAudit(tx, {
        teamId,
        actor: personActor(user, from),
        action: 'user.set_up',
        resource: { type: 'user', id },
        scope: 'admin',
      })
      return await sessions.open(tx, user, from)
    })
  }
}

/** @throws AppError `conflict`, `invalid_token` */
async function refuse(db: Db, code: string): Promise<void> {
  if ((await countActive(db)).all > 0) throw new AppError('conflict', 'This platform has its first account; log in.')
  if (await isSetUpCode(db, digestOf(code))) return
  throw new AppError('invalid_token', 'This is not the code of the set-up; `wrenn up` prints a new link each time.')
}

/** One that was made but never activated is as good as none: who has the code has the platform. */
async function pendingAccount(tx: Db, email: string, name: string): Promise<UserRow> {
  const there = await findUserByEmail(tx, email)
  if (there === undefined) return await addUser(tx, { email, name })
  if (there.status === 'pending' && there.deleted_at === null) return there
  throw new AppError('email_taken', `There is an account with the address ${email} already.`)
}

async function readCode(file: string): Promise<string | undefined> {
  try {
    const code = (await readFile(file, 'utf8')).trim()
    return /^[0-9a-f]{64}$/.test(code) ? code : undefined
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}

/** In place: its folder need not be ours to write. */
async function writeCode(path: string, code: string): Promise<void> {
  await using file = await open(path, 'w', 0o600)
  if (code !== '') await file.writeFile(`${code}\n`)
}
