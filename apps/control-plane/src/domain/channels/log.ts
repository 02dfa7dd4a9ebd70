import { AppError } from '@wrenn/base'
import type { ChannelDelivery, ChannelDeliveryPage, ListDeliveriesQuery } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import {
  announceDeliveries,
  findDelivery,
  listDeliveries,
  requeueDead,
  requeueDelivery,
} from '../../store/channel-deliveries.js'
import { findChannel, lockChannel, updateChannel } from '../../store/channels.js'
import type { Db } from '../../store/database.js'
import type { Actor, ChannelRow, DeliveryRow } from '../../store/schema.js'
import { entry, noChannel } from './channels.js'

const RESENT_AT_ONCE = 2_000

/** What became of each event at a channel, and another try for what was given up. */
export class ChannelLog {
  readonly #db: Db
  readonly #part: number

  /** @param part how many are had sent again by one transaction */
  constructor(db: Db, part = RESENT_AT_ONCE) {
    this.#db = db
    this.#part = part
  }

  /** A page, newest first. @throws AppError `channel_not_found` */
  async list(teamId: string, id: string, { state, cursor, limit }: ListDeliveriesQuery): Promise<ChannelDeliveryPage> {
    if ((await findChannel(this.#db, teamId, id)) === undefined) throw noChannel(id)
    const rows = await listDeliveries(this.#db, id, { state, before: cursor, limit: limit + 1 })
    const page = rows.slice(0, limit)
    const last = rows.length > limit ? page.at(-1) : undefined
    return { items: page.map(toDelivery), ...(last === undefined ? {} : { next_cursor: last.seq }) }
  }

  /**
   * Sends one again, under its old id.
   * @throws AppError `channel_not_found`, `delivery_not_found`, `invalid_state` while it waits or the channel is off
   */
  async resend(teamId: string, id: string, deliveryId: string, actor: Actor): Promise<ChannelDelivery> {
    return await this.#again(teamId, id, async (tx, channel) => {
      const again = await requeueDelivery(tx, id, deliveryId)
      if (again === undefined) {
        if ((await findDelivery(tx, id, deliveryId)) === undefined) {
          throw new AppError('delivery_not_found', `The channel has no delivery ${deliveryId}.`)
        }
        throw new AppError('invalid_state', 'It waits to be sent already.')
      }
      await writeAudit(tx, entry('channel.resend', channel, actor, { delivery: deliveryId }))
      return toDelivery(again)
    })
  }

  /**
   * Sends all again that were given up, in parts: what one part has begun is not undone when a later one cannot be.
   * @returns how many @throws AppError `channel_not_found`, `invalid_state` while it is off
   */
  async resendDead(teamId: string, id: string, actor: Actor): Promise<number> {
    let total = 0
    for (let after = 0; ; ) {
      const part = await this.#again(teamId, id, async (tx, channel) => {
        const seqs = await requeueDead(tx, id, { after, limit: this.#part })
        const { length: count } = seqs
        if (count > 0) await writeAudit(tx, entry('channel.resend', channel, actor, { count: String(count) }))
        return seqs
      })
      total += part.length
      if (part.length < this.#part) return total
      // What is given up once more meanwhile is behind this place.
      after = Math.max(...part)
    }
  }

  async #again<T>(teamId: string, id: string, task: (tx: Db, channel: ChannelRow) => Promise<T>): Promise<T> {
    return await this.#db.transaction().execute(async (tx) => {
      const channel = await lockChannel(tx, teamId, id)
      if (channel === undefined) throw noChannel(id)
      if (!channel.enabled) {
        throw new AppError('invalid_state', 'The channel is switched off; switch it on first, with {"enabled": true}.')
      }
      const done = await task(tx, channel)
      // Somebody waits for it: no back-off holds it up.
      await updateChannel(tx, id, {})
      await announceDeliveries(tx)
      return done
    })
  }
}

function toDelivery(row: DeliveryRow): ChannelDelivery {
  return {
    id: row.id,
    channel_id: row.channel_id,
    event: row.type,
    resource_id: row.resource_id,
    at: row.at.toISOString(),
    state: row.state,
    attempts: row.attempts,
    ...(row.ended_at === null ? {} : { ended_at: row.ended_at.toISOString() }),
    ...(row.reason === null ? {} : { reason: row.reason }),
    ...(row.request === null ? {} : { request: { ...row.request, headers: { ...row.request.headers } } }),
    ...(row.answer === null ? {} : { answer: row.answer }),
  }
}
