import { AppError, hostIds } from '@wrenn/base'
import type { Host, NewHost } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { dropDrain } from '../../store/host-drains.js'
import { recordRemoval } from '../../store/hosts.js'
import {
  addJoinedHost,
  countCapsulesElsewhere,
  countCapsulesOfHost,
  countOwnCapsules,
  dropJoinedHost,
  findJoinedHost,
  listJoinedHosts,
  lockJoinedHost,
  updateJoinedHost,
} from '../../store/joined-hosts.js'
import { lockHost, sharePlacement } from '../../store/placement.js'
import type { Actor } from '../../store/schema.js'
import { countTemplatesOfHost } from '../../store/snapshots.js'
import { digestOf, newSecret } from '../people/index.js'
import type { HostAuthority } from './host-authority.js'
import { hostToken } from './host-tokens.js'
import { hostEntry, toHost } from './joined-host-view.js'

const TOKEN_LIFETIME_MS = 3600 * 1000

interface JoinedHostsDeps {
  readonly db: Db
  readonly authority: HostAuthority
  /** Whether this platform's capsules run on a machine that joins; else on that of the control plane. */
  readonly takesHosts: boolean
  /** @default the time of this machine */
  readonly now?: () => Date
}

/**
 * A host that answers and has no such capsule has lost it: the platform's own must not be asked for those of another one.
 * @throws AppError `invalid_config`
 */
export async function requireNoneElsewhere(db: Db): Promise<void> {
  const capsules = await countCapsulesElsewhere(db)
  if (capsules === 0) return
  const message = `${capsules} capsules are on a machine that has joined, and would be taken for lost here: use --remote-host (WRENN_REMOTE_HOST=1).`
  throw new AppError('invalid_config', message)
}

/** The other machines that run the capsules of this platform, for its admins. */
export class JoinedHosts {
  readonly #deps: JoinedHostsDeps

  constructor(deps: JoinedHostsDeps) {
    this.#deps = deps
  }

  /** The oldest first. */
  async list(): Promise<Host[]> {
    return (await listJoinedHosts(this.#deps.db)).map(toHost)
  }

  /** @throws AppError `host_not_found` */
  async get(id: string): Promise<Host> {
    const host = await findJoinedHost(this.#deps.db, id)
    if (host === undefined) throw noHost(id)
    return toHost(host)
  }

  /** Makes a place for a machine, and the token by which it joins. @throws AppError `conflict` where none may join; `in_use` */
  async create(actor: Actor): Promise<NewHost> {
    this.#requireRemote()
    const { db, authority } = this.#deps
    await authority.credentials() // without a key for secrets nothing could come of the token
    const now = this.#now()
    const id = hostIds.create()
    return await db.transaction().execute(async (tx) => {
      const capsules = await countOwnCapsules(tx)
      if (capsules > 0) {
        const message = `${capsules} capsules are on the platform's own machine, paused ones too; started without --remote-host it can end them, first.`
        throw new AppError('in_use', message, { details: { capsules } })
      }
      await addJoinedHost(tx, { id, created_by: actor.id, created_at: now, updated_at: now })
      await writeAudit(tx, hostEntry('host.create', id, actor))
      return await this.#newToken(tx, id, now)
    })
  }

  /**
   * Another token for a host that waits for its machine or joins again: it has moved, has lost what it was given, or is trusted no more. The token
   * before is good no longer; what the host has is, until this one is used.
   * @throws AppError `host_not_found`
   */
  async renewToken(id: string, actor: Actor): Promise<NewHost> {
    return await this.#deps.db.transaction().execute(async (tx) => {
      if ((await lockJoinedHost(tx, id)) === undefined) throw noHost(id)
      await writeAudit(tx, hostEntry('host.token', id, actor))
      return await this.#newToken(tx, id, this.#now())
    })
  }

  /**
   * Trusts a host no more and forgets it. Its certificates are revoked; what runs on it is not ended by that.
   * @throws AppError `host_not_found`, `in_use` while it has capsules or templates, unless `force`
   */
  async remove(id: string, force: boolean, actor: Actor): Promise<void> {
    const { db, authority } = this.#deps
    await db.transaction().execute(async (tx) => {
      // Before the lock: whoever makes a capsule of a snapshot has its row, and waits for the lock.
      await recordRemoval(tx, id)
      // A capsule that is given to the host right now counts, and none is given to it afterwards.
      await sharePlacement(tx)
      await lockHost(tx, id)
      const [capsules, templates] = [await countCapsulesOfHost(tx, id), await countTemplatesOfHost(tx, id)]
      if (capsules + templates > 0 && !force) {
        const message = `The host has ${counted(capsules, 'capsule')}, paused ones and ended ones that can be resumed too, and ${counted(templates, 'template')}; end and delete them first, or lose them with force.`
        throw new AppError('in_use', message, { details: { capsules, templates } })
      }
      if (!(await dropJoinedHost(tx, id))) throw noHost(id)
      await authority.revoke(id, tx)
      await writeAudit(tx, hostEntry('host.delete', id, actor, { capsules: `${capsules}`, templates: `${templates}` }))
    })
  }

  /**
   * Gives a host no new capsules from now on, or again, which ends that it is emptied; what is there stays, wakes and is forked there. Asking for what is so already
   * changes nothing.
   * @throws AppError `host_not_found`
   */
  async cordon(id: string, isCordoned: boolean, actor: Actor): Promise<Host> {
    return await this.#deps.db.transaction().execute(async (tx) => {
      await this.cordonIn(tx, id, isCordoned, actor)
      return await changed(tx, id)
    })
  }

  /** The same as a part of another change. @throws AppError `host_not_found` */
  async cordonIn(tx: Db, id: string, isCordoned: boolean, actor: Actor): Promise<void> {
    const host = await lockJoinedHost(tx, id)
    if (host === undefined) throw noHost(id)
    if ((host.cordoned_at !== null) === isCordoned) return
    const now = this.#now()
    await updateJoinedHost(tx, id, { cordoned_at: isCordoned ? now : null, updated_at: now })
    await writeAudit(tx, hostEntry(isCordoned ? 'host.cordon' : 'host.uncordon', id, actor))
    if (!isCordoned && (await dropDrain(tx, id))) await writeAudit(tx, hostEntry('host.stop_drain', id, actor))
  }

  /**
   * What creates may ask for: these tags, and no others. What is on the host stays, whatever it was asked for with.
   * @throws AppError `host_not_found`
   */
  async tag(id: string, tags: readonly string[], actor: Actor): Promise<Host> {
    return await this.#deps.db.transaction().execute(async (tx) => {
      const host = await lockJoinedHost(tx, id)
      if (host === undefined) throw noHost(id)
      const sorted = [...new Set(tags)].sort()
      if (sorted.join(' ') !== host.tags.join(' ')) {
        await updateJoinedHost(tx, id, { tags: sorted, updated_at: this.#now() })
        await writeAudit(tx, hostEntry('host.tag', id, actor, { tags: sorted.join(' ') }))
      }
      return await changed(tx, id)
    })
  }

  /** Another authority signs for hosts from now on. @throws AppError `conflict` while one takes another's place, or where no host may join */
  async rotateAuthority(actor: Actor): Promise<void> {
    this.#requireRemote()
    await this.#deps.authority.rotate(actor)
  }

  #requireRemote(): void {
    if (this.#deps.takesHosts) return
    const message =
      'The capsules of this platform run on its own machine; `wrenn up --remote-host` has them on one that joins.'
    throw new AppError('conflict', message)
  }

  async #newToken(tx: Db, id: string, now: Date): Promise<NewHost> {
    const secret = newSecret()
    const expiresAt = new Date(now.getTime() + TOKEN_LIFETIME_MS)
    const token = { token_digest: digestOf(secret), token_expires_at: expiresAt, token_key_hash: null }
    await updateJoinedHost(tx, id, { ...token, updated_at: now })
    const host = await findJoinedHost(tx, id)
    if (host === undefined) throw noHost(id)
    return {
      host: toHost(host),
      registration_token: hostToken('join', { hostId: id, secret }),
      registration_expires_at: expiresAt.toISOString(),
    }
  }

  #now(): Date {
    return this.#deps.now?.() ?? new Date()
  }
}

async function changed(tx: Db, id: string): Promise<Host> {
  const host = await findJoinedHost(tx, id)
  if (host === undefined) throw new Error('a host that is locked is gone')
  return toHost(host)
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}

function noHost(id: string): AppError {
  return new AppError('host_not_found', `There is no host ${id}.`)
}
