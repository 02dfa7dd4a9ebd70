import { createHmac, timingSafeEqual } from 'node:crypto'
import { AppError } from '@wrenn/base'
import { isRole, permissionsOfRole } from '@wrenn/protocol'
import { goodKeys } from '../../store/api-keys.js'
import type { Db } from '../../store/database.js'
import { rolesInSessions } from '../../store/sessions.js'
import { findSigningKey, isBuildOpen } from '../../store/template-builds.js'
import type { Principal } from '../accounts/index.js'

const PURPOSE = 'template_upload'

/** What a link lets its holder upload, and until when. */
export interface UploadTicket {
  readonly teamId: string
  readonly hash: string
  /** It ends with this build and the earlier ones of its template: clients that ask name only the template. */
  readonly buildId: string
  /** Id of the key or session that asked for it. */
  readonly by: string
  /** Seconds since 1970. */
  readonly expires: number
  /** Hexadecimal. */
  readonly signature: string
}

/** Signs links for uploads, whose holders need no key; a link that one control plane signs is good for all of them. */
export class UploadLinks {
  readonly #db: Db
  #key: Promise<string> | undefined

  constructor(db: Db) {
    this.#db = db
  }

  /** A ticket that is good for `forMs`, as long as the build and whoever asks are. */
  async sign(principal: Principal, upload: Pick<UploadTicket, 'buildId' | 'hash'>, forMs: number) {
    const { teamId } = principal
    const by = principal.kind === 'key' ? principal.id : principal.sessionId
    const keyEndMs = principal.kind === 'key' ? principal.expiresAt?.getTime() : undefined
    const endMs = Math.min(Date.now() + forMs, keyEndMs ?? Number.POSITIVE_INFINITY)
    const ticket = { ...upload, teamId, by, expires: Math.floor(endMs / 1000) }
    return { ...ticket, signature: await this.#signature(ticket) }
  }

  /** @throws AppError `forbidden` for a ticket that is over, by its time, build or holder, or not one of ours */
  async verify(ticket: UploadTicket): Promise<void> {
    const expected = Buffer.from(await this.#signature(ticket))
    const given = Buffer.from(ticket.signature)
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
      throw new AppError('forbidden', 'The link for the upload is not valid.')
    }
    if (ticket.expires * 1000 <= Date.now()) {
      throw new AppError('forbidden', 'The link for the upload has expired; begin the build again.')
    }
    if (!(await isBuildOpen(this.#db, ticket.teamId, ticket.buildId))) {
      throw new AppError('forbidden', 'The link for the upload is of a build that has ended; begin another.')
    }
    if (await this.#isHeld(ticket)) return
    throw new AppError('forbidden', 'The link for the upload has ended with the key or session that asked for it.')
  }

  async #isHeld({ by, teamId }: UploadTicket): Promise<boolean> {
    if ((await goodKeys(this.#db, [by])).has(by)) return true
    const [team, role = ''] = (await rolesInSessions(this.#db, [by])).get(by)?.split(' ') ?? []
    return team === teamId && isRole(role) && permissionsOfRole(role).has('templates.write')
  }

  async #signature({ teamId, hash, buildId, by, expires }: Omit<UploadTicket, 'signature'>): Promise<string> {
    const key = await this.#signingKey()
    return createHmac('sha256', key)
      .update(JSON.stringify([teamId, hash, buildId, by, expires]))
      .digest('hex')
  }

  async #signingKey(): Promise<string> {
    this.#key ??= findSigningKey(this.#db, PURPOSE)
    try {
      return await this.#key
    } catch (error) {
      this.#key = undefined
      throw error
    }
  }
}
