import { AppError } from '@wrenn/base'
import type {
  Channel,
  ChannelSecret,
  ChannelTestResult,
  CreateChannelInput,
  ListChannelsQuery,
  NewChannel,
  TestChannelInput,
  UpdateChannelInput,
} from '@wrenn/protocol'
import { type ChannelConfig, providers, rotateSecret, type Sender } from '../../notify/index.js'
import { type NewAuditEntry, writeAudit } from '../../store/audit.js'
import { announceDeliveries, countPending } from '../../store/channel-deliveries.js'
import {
  addChannel,
  countChannels,
  dropChannel,
  findChannel,
  hasChannelNamed,
  listChannels,
  lockChannel,
  newChannelId,
  updateChannel,
} from '../../store/channels.js'
import type { Db } from '../../store/database.js'
import type { Actor, ChannelRow } from '../../store/schema.js'
import { lockTeam } from '../../store/usage.js'
import type { Principal } from '../accounts/index.js'
import type { Keyring } from '../secrets/index.js'
import { needEvents } from './filters.js'
import { testMessage } from './message.js'
import { openConfig, sealConfig } from './secrets.js'

/** Of a team. */
const MAX_CHANNELS = 100
/** What waits is counted no further. */
const MAX_COUNTED = 10_000
/** How long requests of a webhook are also signed with the secret before. */
const PREVIOUS_MS = 24 * 3600_000
/** Of a team at a time, of this control plane. Each waits for a target as long as that likes, ten seconds at most. */
const MAX_TESTS = 4

interface ChannelsDeps {
  readonly db: Db
  readonly keyring: Keyring
  readonly sender: Sender
}

/** Where a team wants its events sent to. What a target is addressed with comes in and never out again. */
export class Channels {
  readonly #deps: ChannelsDeps
  /** How many tests of each team are under way. */
  readonly #tests = new Map<string, number>()

  constructor(deps: ChannelsDeps) {
    this.#deps = deps
  }

  /** @throws AppError `forbidden` for events that `principal` may not see, `invalid_request`, `target_refused`, `conflict`, `limit_exceeded`, `not_supported` without a key for secrets */
  async create(principal: Principal, input: CreateChannelInput, actor: Actor): Promise<NewChannel> {
    const { teamId } = principal
    needEvents(principal, input.events)
    const { db, keyring } = this.#deps
    const { name, provider } = input
    const { config, target } = this.#read(input)
    const id = newChannelId()
    const sealed = sealConfig(keyring, id, config)
    const events = [...new Set(input.events)]
    const row = await db.transaction().execute(async (tx) => {
      await lockTeam(tx, teamId)
      const count = await countChannels(tx, teamId)
      if (count >= MAX_CHANNELS) {
        throw new AppError('limit_exceeded', `The team has ${count} channels, as many as it may have; delete some.`)
      }
      const added = await addChannel(tx, { id, teamId, name, provider, config: sealed, target, events })
      if (added === undefined) throw nameTaken(name)
      await writeAudit(tx, entry('channel.create', added, actor, { provider, target }))
      return added
    })
    return { ...(await this.#view(row)), ...(provider === 'webhook' ? { secret: config.secret } : {}) }
  }

  /** A page, newest first, and the cursor of the next one. */
  async list(
    teamId: string,
    { cursor, limit }: ListChannelsQuery,
  ): Promise<{ readonly items: Channel[]; readonly nextCursor: string | undefined }> {
    const rows = await listChannels(this.#deps.db, teamId, { afterId: cursor, limit: limit + 1 })
    const page = rows.slice(0, limit)
    return { items: await this.#views(page), nextCursor: rows.length > limit ? page.at(-1)?.id : undefined }
  }

  /** @throws AppError `channel_not_found` */
  async get(teamId: string, id: string): Promise<Channel> {
    return await this.#view(await this.#need(teamId, id))
  }

  /** @throws AppError `channel_not_found`, `conflict`, `forbidden` for events that `principal` may not see */
  async update(principal: Principal, id: string, input: UpdateChannelInput, actor: Actor): Promise<Channel> {
    const { teamId } = principal
    needEvents(principal, input.events ?? [])
    const { name, enabled } = input
    const events = input.events && [...new Set(input.events)]
    const row = await this.#change(teamId, id, async (tx) => {
      if (name !== undefined && (await hasChannelNamed(tx, teamId, name, id))) throw nameTaken(name)
      const change = { ...(name && { name }), ...(events && { events }), ...(enabled === undefined ? {} : { enabled }) }
      const changed = await updateChannel(tx, id, change)
      const details = {
        ...(events && { events: events.join(',') }),
        ...(enabled === undefined ? {} : { enabled: `${enabled}` }),
      }
      await writeAudit(tx, entry('channel.update', changed, actor, details))
      return changed
    })
    return await this.#view(row)
  }

  /**
   * Addresses it with something else altogether; the secret of a webhook stays unless another is given.
   * @throws AppError `channel_not_found`, `invalid_request`, `target_refused`, `forbidden` where it is told of events that `principal` may not see
   */
  async replaceConfig(principal: Principal, id: string, given: ChannelConfig, actor: Actor): Promise<Channel> {
    const { keyring } = this.#deps
    const row = await this.#change(principal.teamId, id, async (tx, before) => {
      needEvents(principal, before.events)
      const isKept = before.provider === 'webhook' && given.secret === undefined
      const { secret, ...previous } = isKept ? openConfig(keyring, before).config : {}
      const { config, target } = this.#read({
        provider: before.provider,
        config: secret === undefined ? given : { ...given, secret },
      })
      const sealed = sealConfig(keyring, id, { ...previous, ...config })
      const changed = await updateChannel(tx, id, { config: sealed, target })
      await writeAudit(tx, entry('channel.rotate_config', changed, actor, { target }))
      return changed
    })
    return await this.#view(row)
  }

  /** Makes another secret for a webhook. @throws AppError `channel_not_found`, `not_supported` for another provider */
  async rotateSecret(teamId: string, id: string, actor: Actor): Promise<ChannelSecret> {
    const { keyring } = this.#deps
    const { config, until } = await this.#change(teamId, id, async (tx, before) => {
      if (before.provider !== 'webhook') {
        throw new AppError('not_supported', 'Only webhooks have a secret of ours; replace the config instead.')
      }
      const rotated = rotateSecret(openConfig(keyring, before).config, PREVIOUS_MS)
      const changed = await updateChannel(tx, id, { config: sealConfig(keyring, id, rotated.config) })
      await writeAudit(tx, entry('channel.rotate_secret', changed, actor))
      return rotated
    })
    return { secret: config.secret ?? '', previous_until: until.toISOString() }
  }

  /** What it was still to send goes too. @throws AppError `channel_not_found` */
  async remove(teamId: string, id: string, actor: Actor): Promise<void> {
    await this.#deps.db.transaction().execute(async (tx) => {
      const row = await lockChannel(tx, teamId, id)
      if (row === undefined) throw noChannel(id)
      await dropChannel(tx, id)
      await writeAudit(tx, entry('channel.delete', row, actor))
    })
  }

  /** Sends a message to what is not saved. @throws AppError `invalid_request`, `target_refused`, `channel_test_failed`, `limit_exceeded` */
  async test(teamId: string, { provider, config: given }: TestChannelInput): Promise<ChannelTestResult> {
    return await this.#test(teamId, provider, this.#read({ provider, config: given }).config)
  }

  /** Sends one to what is saved. @throws AppError `channel_not_found`, `target_refused`, `channel_test_failed`, `limit_exceeded` */
  async testSaved(teamId: string, id: string): Promise<ChannelTestResult> {
    const row = await this.#need(teamId, id)
    return await this.#test(teamId, row.provider, openConfig(this.#deps.keyring, row).config)
  }

  async #test(teamId: string, provider: ChannelRow['provider'], config: ChannelConfig): Promise<ChannelTestResult> {
    const { sender } = this.#deps
    const sent = await this.#oneOfFew(teamId, () => sender.send(provider, config, testMessage(teamId)))
    const { verdict, answer, durationMs, refusal } = sent
    if (verdict.kind === 'delivered') return { status: 'ok', duration_ms: durationMs }
    if (refusal !== undefined) throw refusal
    const details = answer === undefined ? {} : { status: answer.status, answer: answer.body }
    throw new AppError('channel_test_failed', verdict.reason, { details })
  }

  async #oneOfFew<T>(teamId: string, task: () => Promise<T>): Promise<T> {
    const running = this.#tests.get(teamId) ?? 0
    if (running >= MAX_TESTS) {
      throw new AppError('limit_exceeded', `${running} tests of the team are under way; wait until one has ended.`)
    }
    this.#tests.set(teamId, running + 1)
    try {
      return await task()
    } finally {
      const left = (this.#tests.get(teamId) ?? 1) - 1
      if (left === 0) this.#tests.delete(teamId)
      else this.#tests.set(teamId, left)
    }
  }

  #read({ provider, config: given }: TestChannelInput): { readonly config: ChannelConfig; readonly target: string } {
    const kind = providers[provider]
    const config = kind.parse(given, this.#deps.sender.guard)
    return { config, target: kind.target(config) }
  }

  async #need(teamId: string, id: string): Promise<ChannelRow> {
    const row = await findChannel(this.#deps.db, teamId, id)
    if (row === undefined) throw noChannel(id)
    return row
  }

  async #change<T>(teamId: string, id: string, task: (tx: Db, before: ChannelRow) => Promise<T>): Promise<T> {
    return await this.#deps.db.transaction().execute(async (tx) => {
      await lockTeam(tx, teamId)
      const before = await lockChannel(tx, teamId, id)
      if (before === undefined) throw noChannel(id)
      const changed = await task(tx, before)
      await announceDeliveries(tx)
      return changed
    })
  }

  async #view(row: ChannelRow): Promise<Channel> {
    const [view] = await this.#views([row])
    if (view === undefined) throw new Error('a view for each row')
    return view
  }

  async #views(rows: readonly ChannelRow[]): Promise<Channel[]> {
    const ids = rows.map(({ id }) => id)
    const waiting = await countPending(this.#deps.db, ids, MAX_COUNTED)
    return rows.map((row) => toChannel(row, waiting.get(row.id) ?? 0))
  }
}

/** For an id that no channel of the team has. */
export function noChannel(id: string): AppError {
  return new AppError('channel_not_found', `The team has no channel ${id}.`)
}

/** The entry of what happened to a channel. */
export function entry(
  action: string,
  { id, team_id: teamId, name }: ChannelRow,
  actor: Actor,
  details: Readonly<Record<string, string>> = {},
): NewAuditEntry {
  return { teamId, actor, action, resource: { type: 'channel', id }, details: { name, ...details } }
}

function nameTaken(name: string): AppError {
  return new AppError('conflict', `The team has a channel named ${name} already.`)
}

function toChannel(row: ChannelRow, waiting: number): Channel {
  const isHeld = row.failures > 0 && row.enabled && waiting > 0
  return {
    id: row.id,
    team_id: row.team_id,
    name: row.name,
    provider: row.provider,
    target: row.target,
    events: row.events,
    enabled: row.enabled,
    ...(row.problem === null ? {} : { problem: row.problem }),
    waiting,
    ...(isHeld ? { retry_at: row.next_at.toISOString() } : {}),
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString(),
  }
}
