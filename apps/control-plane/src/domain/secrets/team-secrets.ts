import { AppError, errorText, type Logger } from '@wrenn/base'
import { writeAudit } from '../../store/audit.js'
import { type Db, inTransaction } from '../../store/database.js'
import type { Actor, SecretRow } from '../../store/schema.js'
import {
  addSecret,
  countSecrets,
  dropSecret,
  findSecret,
  findSecretsNamed,
  findSecretsSealedOtherwise,
  findUntoldSecrets,
  listSecrets,
  newSecretId,
  noteSecretChanged,
  replaceSecret,
  resealSecret,
} from '../../store/secrets.js'
import { lockTeam } from '../../store/usage.js'
import type { Keyring } from './keyring.js'

const MAX_SECRETS = 500
const NOTED_AT_ONCE = 100

interface SecretsDeps {
  readonly db: Db
  readonly keyring: Keyring
  readonly logger: Logger
}

/** What is known of a secret beside its value, which nobody is shown. */
export type SecretInfo = Pick<SecretRow, 'id' | 'name' | 'version' | 'metadata' | 'created_at' | 'updated_at'>

type Metadata = Readonly<Record<string, string>>

/**
 * Secrets of teams, which rules of egress policies set in requests by name: a value comes in, and goes out to hosts of capsules with such rules
 * alone. Only the newest one is kept.
 */
export class TeamSecrets {
  readonly #deps: SecretsDeps

  constructor(deps: SecretsDeps) {
    this.#deps = deps
  }

  /** @throws AppError `conflict` for a name that is taken, `limit_exceeded`, `not_supported` without a key for secrets */
  async create(
    teamId: string,
    { name, value, metadata }: { readonly name: string; readonly value: string; readonly metadata: Metadata },
    actor: Actor,
  ): Promise<SecretInfo> {
    const { db, keyring } = this.#deps
    const id = newSecretId()
    const sealed = keyring.seal(value, contextOf(teamId, id))
    const row = await inTransaction(db, async (tx) => {
      await lockTeam(tx, teamId)
      const count = await countSecrets(tx, teamId)
      if (count >= MAX_SECRETS) {
        throw new AppError('limit_exceeded', `The team has ${count} secrets, as many as it may have; delete some.`)
      }
      const added = await addSecret(tx, { id, teamId, name, value: sealed, metadata })
      if (added === undefined) {
        throw new AppError('conflict', `There is a secret ${name} already; give it a new value, or another name.`)
      }
      await writeAudit(tx, entry('secret.create', added, actor))
      return added
    })
    await this.#note(row)
    return row
  }

  /** A page by name, and the name that the next one begins after. */
  async list(
    teamId: string,
    { afterName, limit }: { readonly afterName: string | undefined; readonly limit: number },
  ): Promise<{ readonly items: readonly SecretInfo[]; readonly nextName: string | undefined }> {
    const rows = await listSecrets(this.#deps.db, teamId, { afterName, limit: limit + 1 })
    const items = rows.slice(0, limit)
    return { items, nextName: rows.length > limit ? items.at(-1)?.name : undefined }
  }

  /** @throws AppError `not_found` */
  async get(teamId: string, idOrName: string): Promise<SecretInfo> {
    return await need(this.#deps.db, teamId, idOrName)
  }

  /**
   * Gives it a new value, which capsules have within about a second. `metadata` that is `undefined` stays.
   * @throws AppError `not_found`, `not_supported` without a key for secrets
   */
  async replace(
    teamId: string,
    idOrName: string,
    { value, metadata }: { readonly value: string; readonly metadata: Metadata | undefined },
    actor: Actor,
  ): Promise<SecretInfo> {
    const { db, keyring } = this.#deps
    const row = await inTransaction(db, async (tx) => {
      const { id } = await need(tx, teamId, idOrName)
      const replaced = await replaceSecret(tx, id, { value: keyring.seal(value, contextOf(teamId, id)), metadata })
      if (replaced === undefined) throw noSuch(idOrName)
      await writeAudit(tx, entry('secret.update', replaced, actor))
      return replaced
    })
    await this.#note(row)
    return row
  }

  /** Rules that refer to it set that header no more. @throws AppError `not_found` */
  async remove(teamId: string, idOrName: string, actor: Actor): Promise<void> {
    const row = await inTransaction(this.#deps.db, async (tx) => {
      const { id } = await need(tx, teamId, idOrName)
      const dropped = await dropSecret(tx, id)
      if (dropped === undefined) throw noSuch(idOrName)
      await writeAudit(tx, entry('secret.delete', dropped, actor))
      return dropped
    })
    await this.#note(row)
  }

  /** For each round: what a process that ended, or a database that went away, left to be noted. */
  async noteChanges(): Promise<void> {
    // One that fails keeps neither the others nor what else is pending in this round.
    for (const row of await findUntoldSecrets(this.#deps.db, NOTED_AT_ONCE)) await this.#note(row)
  }

  /** Encrypts anew what an older key has encrypted. @returns ids of those whose key is gone already: they stay as they are */
  async resealAll(): Promise<readonly string[]> {
    const { db, keyring } = this.#deps
    const lost: string[] = []
    for (const row of keyring.isEmpty ? [] : await findSecretsSealedOtherwise(db, keyring.sealPrefix)) {
      try {
        await resealSecret(db, row, keyring.seal(open(keyring, row), contextOf(row.team_id, row.id)))
      } catch (error) {
        if (!AppError.is(error, 'not_supported')) throw error
        lost.push(row.id)
      }
    }
    return lost
  }

  /** It is committed: where this fails, a round does it. */
  async #note(row: SecretRow): Promise<void> {
    const { db, logger } = this.#deps
    try {
      await noteSecretChanged(db, row)
    } catch (error) {
      logger.warn({ secretId: row.id, error: errorText(error) }, 'secret.not_noted')
    }
  }
}

/** Values by name; a name that there is no secret of has none. @throws AppError `not_supported` when a key is not there */
export async function openSecrets(
  { db, keyring }: Pick<SecretsDeps, 'db' | 'keyring'>,
  teamId: string,
  names: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  const rows = await findSecretsNamed(db, teamId, names)
  return new Map(rows.map((row) => [row.name, open(keyring, row)]))
}

function open(keyring: Keyring, { id, team_id: teamId, value }: SecretRow): string {
  return keyring.open(value, contextOf(teamId, id)).text
}

async function need(db: Db, teamId: string, idOrName: string): Promise<SecretRow> {
  const row = await findSecret(db, teamId, idOrName.toLowerCase())
  if (row === undefined) throw noSuch(idOrName)
  return row
}

function noSuch(idOrName: string): AppError {
  return new AppError('not_found', `There is no secret ${idOrName.slice(0, 200)}.`)
}

function entry(action: string, { id, team_id: teamId, name, version }: SecretRow, actor: Actor) {
  const details = { name, version: String(version) }
  return { teamId, actor, action, resource: { type: 'secret', id } as const, details }
}

function contextOf(teamId: string, id: string): string {
  return `secret ${id} of ${teamId}`
}
