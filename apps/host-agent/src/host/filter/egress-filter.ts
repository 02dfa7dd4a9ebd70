import { AppError, errorText, identify, KeyedMutex, type Logger, signalProcess } from '@wrenn/base'
import { joinLearned, type Learned, lostLearned, nothingLearned, type Refusal } from '../names/index.js'
import type { EgressPolicy } from '../network/policy.js'
import type { FilterLine } from './line.js'
import {
  type FilterPlan,
  filterProcesses,
  hasNamespace,
  type LinkedSlot,
  linkedSlots,
  linkSlot,
  makeFilterNamespace,
  removeFilterNamespace,
} from './namespace.js'
import { type FilterProgram, findFilter, startFilter, versionOf } from './program.js'
import type { FilterAnswer, FilterAsk } from './protocol.js'

const FIRST_RETRY_MS = 250
const LONGEST_RETRY_MS = 15_000

interface EgressFilterOptions {
  readonly plan: Omit<FilterPlan, 'mtu'>
  /** Of slots' links, once it is known. */
  readonly mtu: () => number
  /** Without it names cannot be kept, only what an earlier start made be removed. */
  readonly program: FilterProgram | undefined
  readonly logger: Logger
}

interface Linked {
  readonly source: string
  /** `undefined`: of an earlier start, and not loaded again yet. */
  readonly policy: EgressPolicy | undefined
  /** Whether a filter that has ended has taken with it what it had noted, since the policy learns. */
  readonly hasForgotten: boolean
}

/**
 * The filter of this host, as the network uses it: made with the first policy that has names, started again when it ends, and left
 * running when the host agent stops. While it is away, what it would decide is refused.
 */
export class EgressFilter {
  readonly #options: EgressFilterOptions
  /** By slot. */
  readonly #linked = new Map<number, Linked>()
  readonly #making = new KeyedMutex()
  #line: Promise<FilterLine> | undefined
  #retry: NodeJS.Timeout | undefined
  #retryMs = FIRST_RETRY_MS
  #stopped = false

  constructor(options: EgressFilterOptions) {
    this.#options = options
  }

  /** Takes over what an earlier start left. @returns the slots of `indexes` whose names it decides */
  async adopt(indexes: readonly number[], sourceOf: (index: number) => string): Promise<readonly number[]> {
    this.#stopped = false
    const { program, plan } = this.#options
    if (!(await hasNamespace(plan.name))) return []
    const linked = (await linkedSlots(plan.name)).filter((index) => indexes.includes(index))
    for (const index of linked)
      this.#linked.set(index, { source: sourceOf(index), policy: undefined, hasForgotten: false })
    const line = program && (await findFilter(program, await versionOf(program)))
    if (line === undefined) return linked
    await line.ask({ op: 'keep', sources: linked.map(sourceOf) })
    this.#line = Promise.resolve(line)
    void line.closed.then(() => this.#lost())
    return linked
  }

  /** Whether a slot is linked with it, so that it may have connections there. */
  has(index: number): boolean {
    return this.#linked.has(index)
  }

  /**
   * Has it decide by a policy; connections that this forbids end.
   * @throws AppError `engine_failure`; then what it would decide is refused
   */
  async set(slot: LinkedSlot, policy: EgressPolicy): Promise<void> {
    this.#requireProgram()
    const { plan, mtu } = this.#options
    const { index, address: source } = slot
    await this.#making.run(plan.name, () => makeFilterNamespace({ ...plan, mtu: mtu() }))
    if (!this.#linked.has(index)) await linkSlot(plan.name, slot, mtu())
    const hasForgotten = policy.learn === true && this.#linked.get(index)?.hasForgotten === true
    this.#linked.set(index, { source, policy, hasForgotten })
    await (await this.#open()).ask({ op: 'set', source, policy })
  }

  /** Ends what a slot has there; its link goes with its namespace. */
  async forget(index: number): Promise<void> {
    const linked = this.#linked.get(index)
    this.#linked.delete(index)
    // One that does not answer is given up, with all its connections.
    if (linked !== undefined) await this.#ask({ op: 'forget', source: linked.source })
  }

  /** What it refused of a slot, the newest first; nothing while it is away. */
  async refused(index: number): Promise<readonly Refusal[]> {
    const linked = this.#linked.get(index)
    return linked === undefined ? [] : ((await this.#ask({ op: 'refused', source: linked.source }))?.refused ?? [])
  }

  /** What it saw a slot use; not all of that while it is away, or when it has ended since. */
  async learned(index: number): Promise<Learned> {
    const linked = this.#linked.get(index)
    if (linked === undefined) return nothingLearned
    const { learned = lostLearned } = (await this.#ask({ op: 'learned', source: linked.source })) ?? {}
    return linked.hasForgotten ? joinLearned(learned, lostLearned) : learned
  }

  /** Leaves it running, with all its connections. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#retry)
    const line = await this.#line?.catch(() => undefined)
    this.#line = undefined
    line?.close()
  }

  /** Ends it and removes all that it has on the host. */
  async remove(): Promise<void> {
    await this.stop()
    this.#linked.clear()
    const { name } = this.#options.plan
    for (const pid of await filterProcesses(name)) await kill(pid)
    await removeFilterNamespace(name)
  }

  #requireProgram(): FilterProgram {
    const { program } = this.#options
    if (program !== undefined) return program
    throw new AppError('engine_failure', 'This host has no egress filter: names cannot be kept.')
  }

  /** Nothing from one that is away. */
  async #ask(ask: FilterAsk): Promise<FilterAnswer | undefined> {
    const line = await this.#line?.catch(() => undefined)
    return await line?.ask(ask).catch(() => undefined)
  }

  async #open(): Promise<FilterLine> {
    this.#line ??= this.#find().catch((error: unknown) => {
      this.#line = undefined
      throw error
    })
    return await this.#line
  }

  async #find(): Promise<FilterLine> {
    const { plan, logger } = this.#options
    const program = this.#requireProgram()
    const version = await versionOf(program)
    const start = { namespace: plan.name, nameServer: plan.dnsAddress, version }
    const line = (await findFilter(program, version)) ?? (await startFilter(program, start))
    // One that ran on may have what slots had that are another capsule's now.
    await line.ask({ op: 'keep', sources: [...this.#linked.values()].map(({ source }) => source) })
    for (const { source, policy } of this.#linked.values()) {
      if (policy !== undefined) await line.ask({ op: 'set', source, policy })
    }
    this.#retryMs = FIRST_RETRY_MS
    logger.info({ namespace: plan.name }, 'egress_filter.found')
    void line.closed.then(() => this.#lost())
    return line
  }

  #lost(): void {
    this.#line = undefined
    if (this.#stopped) return
    for (const [index, linked] of this.#linked) {
      if (linked.policy?.learn === true) this.#linked.set(index, { ...linked, hasForgotten: true })
    }
    this.#options.logger.warn({ namespace: this.#options.plan.name }, 'egress_filter.lost')
    this.#tryAgain()
  }

  #tryAgain(): void {
    if (this.#stopped || this.#linked.size === 0) return
    this.#retry = setTimeout(() => {
      this.#open().catch((error: unknown) => {
        this.#options.logger.warn({ error: errorText(error) }, 'egress_filter.not_started')
        this.#tryAgain()
      })
    }, this.#retryMs).unref()
    this.#retryMs = Math.min(this.#retryMs * 2, LONGEST_RETRY_MS)
  }
}

/** It may have ended meanwhile. */
async function kill(pid: number): Promise<void> {
  const id = await identify(pid)
  if (id !== undefined) await signalProcess(id, 'SIGKILL')
}
