import { AppError, errorText, type Logger } from '@wrenn/base'
import { unlessOlderHost } from '../../host/errors.js'
import type { Host } from '../../host/host.js'
import type { Db } from '../../store/database.js'
import { recordTraffic } from '../../store/usage-traffic.js'
import { Rounds } from '../rounds.js'

const EVERY_MS = 30_000
const COLLECT_TIMEOUT_MS = 10_000

interface TrafficCollectorDeps {
  readonly db: Db
  readonly host: Host
  readonly logger: Logger
  /** @default 30 000 */
  readonly everyMs?: number
}

/**
 * Enters what capsules received and sent. The host counts from each guest's start on and tells of those that have ended until it hears that
 * they were entered, so that nothing is missing when nobody has asked for a while; any number of control planes may ask.
 */
export class TrafficCollector extends Rounds {
  readonly #deps: TrafficCollectorDeps
  /** Guests that have ended and were entered. */
  #noted: readonly string[] = []

  constructor(deps: TrafficCollectorDeps) {
    const { everyMs = EVERY_MS, logger } = deps
    super(
      () => this.collect(),
      everyMs,
      (error) => {
        // That its host is away is told elsewhere, and it counts on.
        const level = AppError.is(error, 'host_unavailable', 'timeout') ? 'debug' : 'warn'
        logger[level]({ error: errorText(error) }, 'usage.traffic_not_collected')
      },
    )
    this.#deps = deps
  }

  /** One round. */
  async collect(): Promise<void> {
    const { db, host } = this.#deps
    const request = { notedGuests: [...this.#noted] }
    const { guests } = await host.call(async (client) => {
      try {
        return await client.collectTraffic(request, { timeoutMs: COLLECT_TIMEOUT_MS })
      } catch (error) {
        throw unlessOlderHost(error, 'counts no traffic')
      }
    })
    await recordTraffic(
      db,
      guests.map(({ rxBytes, txBytes, capsuleId, guestId }) => ({
        capsuleId,
        guestId,
        rxBytes: Number(rxBytes),
        txBytes: Number(txBytes),
      })),
      host.joinedId,
    )
    this.#noted = guests.filter(({ ended }) => ended).map(({ guestId }) => guestId)
  }
}
