import { errorText, type Logger } from '@wrenn/base'
import type { Host } from '../../host/host.js'
import type { Hosts } from '../../host/hosts.js'
import type { Db } from '../../store/database.js'
import { listHostsOfLeftovers } from '../../store/stored-states.js'
import { Rounds } from '../rounds.js'
import { freeLeftovers } from './leftovers.js'

interface LeftoverRoundsDeps {
  readonly db: Db
  readonly hosts: Hosts
  readonly logger: Logger
  readonly everyMs: number
}

/** Has hosts free what they still have of capsules that hibernate, or that went on elsewhere. A host that is slow at it keeps no other waiting. */
export class LeftoverRounds {
  readonly #deps: LeftoverRoundsDeps
  readonly #rounds: Rounds
  readonly #under = new Map<Host, Promise<void>>()

  constructor(deps: LeftoverRoundsDeps) {
    this.#deps = deps
    this.#rounds = new Rounds(
      () => this.#look(),
      deps.everyMs,
      (error) => this.#note(error),
    )
  }

  start(): void {
    this.#rounds.start()
  }

  /** Waits for what is under way. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
    await Promise.all(this.#under.values())
  }

  async #look(): Promise<void> {
    const { db, hosts } = this.#deps
    const having = await listHostsOfLeftovers(db)
    if (having.size === 0) return
    for (const host of hosts.all) {
      const { joinedId, isSilent } = host
      if (isSilent || this.#under.has(host) || (joinedId !== undefined && !having.has(joinedId))) continue
      const freed = freeLeftovers(this.#deps, host).catch((error: unknown) => this.#note(error))
      this.#under.set(
        host,
        freed.finally(() => this.#under.delete(host)),
      )
    }
  }

  #note(error: unknown): void {
    this.#deps.logger.debug({ error: errorText(error) }, 'leftovers.retry')
  }
}
