import { errorText, type Logger } from '@wrenn/base'
import type { Db } from '../../store/database.js'
import {
  beginCollecting,
  dropLayer,
  dropLeftoversOfGone,
  dropStored,
  endCollecting,
  listUnwantedStates,
  listWasteful,
  type StoredTeamRef,
} from '../../store/stored-states.js'
import { Rounds } from '../rounds.js'
import type { Keyring } from '../secrets/index.js'
import { storeKeyOf } from './store-key.js'

const LOOK_EVERY_MS = 15_000
/** Removed in a round. */
const BATCH = 100
const REMOVE_TIMEOUT_MS = 60_000
/** Meanwhile nothing of the team is begun to be stored, and afterwards nothing is collected any more. */
const COLLECT_MS = 10 * 60_000
const COLLECT_MARGIN_MS = 60_000

/** What a team has in the object store. */
export interface TeamStates {
  /** Idempotent. */
  remove(stateId: string, signal: AbortSignal): Promise<void>
  /** Removes chunks that no state needs, those that are `known` to be there above all; nobody may store meanwhile. */
  collect(options: {
    readonly signal: AbortSignal
    readonly known: readonly string[]
  }): Promise<{ readonly removed: number; readonly bytes: number }>
}

/** Opens it. @throws AppError as the store answers */
export type OpenTeamStates = (key: { readonly id: string; readonly key: Buffer }) => Promise<TeamStates>

interface StoredStatesDeps {
  readonly db: Db
  readonly keyring: Keyring
  readonly openStates: OpenTeamStates
  readonly logger: Logger
  /** @default 15 s */
  readonly everyMs?: number
}

/** Takes out of the object store what is no capsule's any more. Several control planes may do it at once. */
export class StoredStates {
  readonly #deps: StoredStatesDeps
  readonly #rounds: Rounds
  readonly #stopping = new AbortController()

  constructor(deps: StoredStatesDeps) {
    this.#deps = deps
    const onFailure = (error: unknown): void =>
      deps.logger.warn({ error: errorText(error) }, 'stored_states.not_removed')
    this.#rounds = new Rounds(() => this.look(), deps.everyMs ?? LOOK_EVERY_MS, onFailure)
  }

  start(): void {
    this.#rounds.start()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#rounds.stop()
  }

  /** Looks once. */
  async look(): Promise<void> {
    const { db, logger } = this.#deps
    await dropLeftoversOfGone(db)
    for (const state of await listUnwantedStates(db, BATCH)) {
      const { id: stateId, capsule_id: capsuleId } = state
      await this.#attempt({ stateId, capsuleId }, async () => {
        const states = await this.#open(state)
        await states.remove(stateId, this.#within(REMOVE_TIMEOUT_MS))
        await dropStored(db, state)
        logger.info({ stateId, capsuleId }, 'stored_state.removed')
      })
    }
    for (const team of await listWasteful(db)) {
      await this.#attempt({ teamId: team.team_id }, async () => await this.#collect(team))
    }
  }

  /** One of them that cannot be removed, as when its key is not there any more, keeps no other from it. */
  async #attempt(fields: Readonly<Record<string, string>>, work: () => Promise<void>): Promise<void> {
    if (this.#stopping.signal.aborted) return
    try {
      await work()
    } catch (error) {
      if (this.#stopping.signal.aborted) return
      this.#deps.logger.warn({ ...fields, error: errorText(error) }, 'stored_states.not_removed')
    }
  }

  async #collect(team: StoredTeamRef): Promise<void> {
    const { db, logger } = this.#deps
    const states = await this.#open(team)
    const holdings = await beginCollecting(db, team, COLLECT_MS)
    if (holdings === undefined) return
    const signal = this.#within(COLLECT_MS - COLLECT_MARGIN_MS)
    let isClean = false
    try {
      for (const digest of holdings.unneeded) {
        // First: a layer that is thought not to be there is stored again.
        await dropLayer(db, team, digest)
        await states.remove(layerId(digest), signal)
      }
      const known = [...holdings.states, ...holdings.layers.map(layerId)]
      const { removed, bytes } = await states.collect({ signal, known })
      isClean = true
      logger.info({ teamId: team.team_id, removed, bytes }, 'stored_states.collected')
    } finally {
      await endCollecting(db, team, isClean)
    }
  }

  async #open(team: StoredTeamRef): Promise<TeamStates> {
    return await this.#deps.openStates(storeKeyOf(this.#deps.keyring, team))
  }

  #within(ms: number): AbortSignal {
    return AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(ms)])
  }
}

/** As hosts name what they store of a layer. */
function layerId(digest: string): string {
  return `layer-${digest}`
}
