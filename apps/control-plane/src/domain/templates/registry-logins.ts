import { AppError } from '@wrenn/base'
import { parseImageReference, type SaveRegistryLoginInput, type RegistryLogin as WireLogin } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import {
  dropRegistryLogin,
  findRegistryLogin,
  listRegistryLogins,
  resealRegistryLogin,
  saveRegistryLogin,
} from '../../store/registry-logins.js'
import type { Actor, RegistryLoginRow } from '../../store/schema.js'
import { lockTeam } from '../../store/usage.js'
import type { Keyring } from '../secrets/index.js'

const MAX_LOGINS = 50

/** Who asks a registry. */
export interface RegistryLogin {
  readonly username: string
  readonly password: string
}

interface LoginDeps {
  readonly db: Db
  readonly keyring: Keyring
}

/** How builds of a team log in at registries; passwords are encrypted, and shown to nobody. */
export class RegistryLogins {
  readonly #deps: LoginDeps

  constructor(deps: LoginDeps) {
    this.#deps = deps
  }

  /** By registry. */
  async list(teamId: string): Promise<WireLogin[]> {
    return (await listRegistryLogins(this.#deps.db, teamId)).map(view)
  }

  /** Replaces an earlier one at that registry. @throws AppError `limit_exceeded`, `not_supported` without a key for secrets */
  async save(
    teamId: string,
    registry: string,
    { username, password }: SaveRegistryLoginInput,
    actor: Actor,
  ): Promise<WireLogin> {
    const { db, keyring } = this.#deps
    const sealed = keyring.seal(password, contextOf(teamId, registry))
    return await db.transaction().execute(async (tx) => {
      await lockTeam(tx, teamId)
      const others = (await listRegistryLogins(tx, teamId)).filter((one) => one.registry !== registry)
      if (others.length >= MAX_LOGINS) {
        throw new AppError(
          'limit_exceeded',
          `The team has ${others.length} logins at registries, as many as it may have; remove some.`,
        )
      }
      const saved = await saveRegistryLogin(tx, { team_id: teamId, registry, username, password: sealed })
      const resource = { type: 'registry', id: registry } as const
      await writeAudit(tx, { teamId, actor, action: 'registry.login', resource, details: { username } })
      return view(saved)
    })
  }

  /** @throws AppError `not_found` */
  async remove(teamId: string, registry: string, actor: Actor): Promise<void> {
    await this.#deps.db.transaction().execute(async (tx) => {
      if (!(await dropRegistryLogin(tx, teamId, registry))) {
        throw new AppError('not_found', `The team has no login at ${registry}.`)
      }
      await writeAudit(tx, { teamId, actor, action: 'registry.logout', resource: { type: 'registry', id: registry } })
    })
  }

  /** How the team asks the registry of an image; `undefined`: as nobody. */
  async of(teamId: string, reference: string): Promise<RegistryLogin | undefined> {
    const { db, keyring } = this.#deps
    const registry = parseImageReference(reference)?.registry
    const row = registry === undefined ? undefined : await findRegistryLogin(db, teamId, registry)
    if (row === undefined) return undefined
    const context = contextOf(teamId, row.registry)
    const { text: password, isCurrent } = keyring.open(row.password, context)
    if (!isCurrent) await resealRegistryLogin(db, row, keyring.seal(password, context))
    return { username: row.username, password }
  }
}

function view({ registry, username, created_at: createdAt, updated_at: updatedAt }: RegistryLoginRow): WireLogin {
  return { registry, username, created_at: createdAt.toISOString(), updated_at: updatedAt.toISOString() }
}

function contextOf(teamId: string, registry: string): string {
  return `registry login of ${teamId} at ${registry}`
}
