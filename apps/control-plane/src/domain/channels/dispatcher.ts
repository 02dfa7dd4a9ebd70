import { AppError, errorText, type Logger } from '@wrenn/base'
import { type ChannelConfig, providers, type Sender } from '../../notify/index.js'
import { listPending, recordAttempts } from '../../store/channel-deliveries.js'
import {
  releaseChannel,
  renewChannel,
  resealChannel,
  returnChannel,
  type TurnEnd,
  takeChannels,
} from '../../store/channels.js'
import type { Db } from '../../store/database.js'
import type { Notifications } from '../../store/notifications.js'
import type { ChannelRow, DeliveryRow } from '../../store/schema.js'
import { backOffMs, rateDelayMs } from '../back-off.js'
import type { Keyring } from '../secrets/index.js'
import { messageOf } from './message.js'
import { openConfig, sealConfig } from './secrets.js'
import { type BatchEnd, type Rest, sendBatch } from './turn.js'

/** Also the channel's name in the trigger of the migration. */
const CHANNEL = 'channel_due'
/** Of one control plane. Each is a promise and few connections. */
const MAX_ACTIVE = 200
const TAKEN_AT_ONCE = 50
/** Ten teams whose targets are slow leave no other without a place; fewer do. */
const MAX_OF_TEAM = 20
/** Longer than a batch takes: 20 s until the last is begun, and 10 s for that. */
const LEASE_MS = 60_000
const BATCH = 100
/** How long a channel is worked on before another one that waits may have its place. */
const TURN_MS = 30_000
const FIRST_DELAY_MS = 1_000
/** Commits come by the thousand; they are looked for together. */
const GATHER_MS = 20
const MAX_REASON = 500
const BROKEN_OFF = 'The platform could not note what came of it; it tries again.'

interface ChannelDispatcherDeps {
  readonly db: Db
  readonly notifications: Pick<Notifications, 'listen'>
  readonly sender: Sender
  readonly keyring: Keyring
  readonly logger: Logger
  /** Where notifications do not come through, this is when it looks. */
  readonly lookEveryMs: number
  /** @default 1 000 */
  readonly firstDelayMs?: number
}

/** A channel as a turn had it last, and how that ended. */
interface LastTurn {
  readonly channel: ChannelRow
  readonly end: TurnEnd
}

/**
 * Sends events to the channels that they wait for, as one of several that may do so. Whoever has taken a channel has it alone, for a time; each channel rests and
 * fails for itself. One that dies between a target's answer and the note of it makes an event come twice, with one id; none is lost.
 */
export class ChannelDispatcher {
  readonly #deps: ChannelDispatcherDeps
  readonly #abort = new AbortController()
  readonly #turns = new Set<Promise<void>>()
  #isStale = false
  #wake: () => void = () => {}
  #done: Promise<void> = Promise.resolve()

  constructor(deps: ChannelDispatcherDeps) {
    this.#deps = deps
    const wake = (): void => this.#look()
    deps.notifications.listen(CHANNEL, wake, wake)
  }

  start(): void {
    this.#done = this.#run()
  }

  /** Waits for the attempts that are under way; what is left waits in the database. */
  async stop(): Promise<void> {
    this.#abort.abort()
    this.#look()
    await this.#done
    await Promise.all(this.#turns)
    this.#deps.sender.close()
  }

  #look(): void {
    this.#isStale = true
    this.#wake()
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort
    while (!signal.aborted) {
      this.#isStale = false
      try {
        await this.#takeDue()
      } catch (error) {
        if (!signal.aborted) this.#deps.logger.warn({ error: errorText(error) }, 'channels.round_failed')
      }
      await sleep(GATHER_MS)
      await this.#change()
    }
  }

  /** Until there is something to look for, or it is time to look anyway. */
  async #change(): Promise<void> {
    if (this.#isStale || this.#abort.signal.aborted) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, this.#deps.lookEveryMs)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  async #takeDue(): Promise<void> {
    const limit = Math.min(MAX_ACTIVE - this.#turns.size, TAKEN_AT_ONCE)
    if (limit <= 0) return
    const taken = await takeChannels(this.#deps.db, { limit, perTeam: MAX_OF_TEAM }, LEASE_MS)
    for (const channel of taken) {
      const turn = this.#turn(channel)
        .catch((error: unknown) =>
          this.#deps.logger.warn({ channelId: channel.id, error: errorText(error) }, 'channel.turn_failed'),
        )
        .finally(() => {
          this.#turns.delete(turn)
          this.#look()
        })
      this.#turns.add(turn)
    }
    if (taken.length === limit) this.#look()
  }

  /** However it ends, the channel is given back: nobody waits for the end of a lease. */
  async #turn(taken: ChannelRow): Promise<void> {
    const { db } = this.#deps
    let last: LastTurn | undefined
    try {
      last = await this.#work(taken)
    } catch (error) {
      // Its target may have had it all: nothing is sent over and over as fast as can be.
      const rest = { kind: 'later', reason: BROKEN_OFF, isRate: false, afterMs: undefined } as const
      last = { channel: taken, end: this.#endOf(taken.failures, rest, taken) }
      throw error
    } finally {
      if (last === undefined) await returnChannel(db, taken)
      else await releaseChannel(db, last.channel, last.end)
    }
  }

  /** Sends what waits for a channel, until nothing does, its target wants a rest, or others wait for the place. `undefined`: it may not be sent to any more. */
  async #work(taken: ChannelRow): Promise<LastTurn | undefined> {
    const { db } = this.#deps
    const endsAt = performance.now() + TURN_MS
    let channel: ChannelRow | undefined = taken
    let failures = taken.failures
    while (channel !== undefined) {
      const rows = await this.#pending(channel)
      const end = await this.#batch(channel, rows)
      await recordAttempts(db, end.records)
      if (end.delivered > 0) failures = 0
      this.#tell(channel, end)
      const isOver =
        end.rest !== undefined || rows.length === 0 || performance.now() > endsAt || this.#abort.signal.aborted
      if (isOver) return { channel, end: this.#endOf(failures, end.rest, channel) }
      channel = await renewChannel(db, channel, LEASE_MS)
    }
    return undefined
  }

  async #batch(channel: ChannelRow, rows: readonly DeliveryRow[]): Promise<BatchEnd> {
    const none = { records: [], rest: undefined, delivered: 0 }
    if (rows.length === 0) return none
    let config: ChannelConfig
    try {
      config = await this.#open(channel)
    } catch (error) {
      const reason = AppError.is(error) ? error.message : 'What the channel is addressed with cannot be read.'
      return { ...none, rest: { kind: 'later', reason, isRate: false, afterMs: undefined } }
    }
    const { provider, team_id: teamId } = channel
    return await sendBatch(rows, {
      concurrency: providers[provider].concurrency,
      send: (row) => this.#deps.sender.send(provider, config, messageOf(teamId, row)),
      signal: this.#abort.signal,
    })
  }

  /** Where all that come first are of lanes that have failed before, those of others too. */
  async #pending({ id }: ChannelRow): Promise<DeliveryRow[]> {
    const { db } = this.#deps
    const first = await listPending(db, id, BATCH)
    const heads = new Map<string, DeliveryRow>()
    for (const row of first) if (!heads.has(row.lane)) heads.set(row.lane, row)
    const failed = [...heads.values()].filter(({ attempts }) => attempts > 0).map(({ lane }) => lane)
    if (first.length < BATCH || failed.length < heads.size) return first
    return [...first, ...(await listPending(db, id, BATCH, failed))]
  }

  async #open(channel: ChannelRow): Promise<ChannelConfig> {
    const { db, keyring } = this.#deps
    const { config, isCurrent } = openConfig(keyring, channel)
    if (!isCurrent) await resealChannel(db, channel, sealConfig(keyring, channel.id, config))
    return config
  }

  #endOf(failures: number, rest: Rest | undefined, { problem }: ChannelRow): TurnEnd {
    if (rest === undefined) {
      // A turn that sent nothing says nothing of what was before.
      return { delayMs: 0, failures, problem: failures === 0 ? null : problem, isGone: false }
    }
    const { kind, reason, isRate, afterMs } = rest
    if (kind === 'pause') return { delayMs: rateDelayMs(afterMs ?? 0), failures: 0, problem: null, isGone: false }
    const after = failures + 1
    const { firstDelayMs = FIRST_DELAY_MS } = this.#deps
    const delayMs = isRate && afterMs !== undefined ? rateDelayMs(afterMs) : backOffMs(after, firstDelayMs)
    return { delayMs, failures: after, problem: (reason ?? '').slice(0, MAX_REASON), isGone: kind === 'gone' }
  }

  #tell({ id: channelId, provider }: ChannelRow, { records, rest, delivered }: BatchEnd): void {
    const { logger } = this.#deps
    const dead = records.filter(({ state }) => state === 'dead').length
    if (records.length > 0) logger.debug({ channelId, provider, delivered, dead }, 'channel.sent')
    if (rest !== undefined && rest.kind !== 'pause') {
      logger.info({ channelId, provider, kind: rest.kind, isRate: rest.isRate, afterMs: rest.afterMs }, 'channel.rests')
    }
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
