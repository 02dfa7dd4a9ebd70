/** A call's answer. */
export interface LagoAnswer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  /** Text as it is; anything else as JSON. */
  readonly body: unknown
}

/** As it was sent. */
export type LagoEvent = Readonly<Record<string, unknown>>

/**
 * Where events are kept. `postgres` refuses a batch with an event that it has; `clickhouse` takes it and keeps one of those that have id,
 * time, code and subscription in common.
 */
export type LagoStore = 'postgres' | 'clickhouse'

interface Kept {
  readonly code: string
  readonly subscription: string
  readonly millionths: bigint
}

const MAX_BATCH = 100

/**
 * What Lago checks of events and what it makes of them, by its documentation (getlago.com/docs/api-reference/events) and by what its open
 * source does: a batch is taken as a whole or not at all, faults are named by place, those of one kind hide those of the next, and an event
 * of a metric or subscription that is not known is taken without a word and never counted.
 */
export class LagoRules {
  /** Answers `undefined`, or why the expression of a metric cannot be worked out for an event. */
  expression: (event: LagoEvent) => string | undefined = () => undefined
  /** Subscriptions that there are; `undefined`: any. */
  subscriptions: ReadonlySet<string> | undefined
  readonly #codes: ReadonlySet<string>
  readonly #store: LagoStore
  readonly #kept = new Map<string, Kept>()

  constructor(codes: readonly string[], store: LagoStore) {
    this.#codes = new Set(codes)
    this.#store = store
  }

  /** How many events it has. */
  get size(): number {
    return this.#kept.size
  }

  /** How many of them count for nobody. */
  get ignored(): number {
    return [...this.#kept.values()].filter((event) => !this.#counts(event)).length
  }

  /** What a subscription has used of a metric, in millionths. */
  total(subscription: string, code: string): bigint {
    const counted = [...this.#kept.values()].filter(
      (event) => event.code === code && event.subscription === subscription && this.#counts(event),
    )
    return counted.reduce((sum, { millionths }) => sum + millionths, 0n)
  }

  take(events: readonly LagoEvent[]): LagoAnswer {
    if (events.length === 0) return unprocessable({ events: ['no_events'] })
    if (events.length > MAX_BATCH) return unprocessable({ events: ['too_many_events'] })
    const faults = at(events, (event) => this.#faultOf(event))
    if (faults !== undefined) return unprocessable(faults)
    const before = new Set<unknown>()
    const known = at(events, (event) => {
      const id = event.transaction_id
      // By the id alone within a batch, whatever the subscription.
      const isKnown = before.has(id) || this.#kept.has(this.#keyOf(event))
      before.add(id)
      return isKnown && this.#store === 'postgres' ? { transaction_id: ['value_already_exist'] } : undefined
    })
    if (known !== undefined) return unprocessable(known)
    for (const event of events) this.#kept.set(this.#keyOf(event), keptOf(event))
    return { status: 200, body: { events: events.map((event) => ({ lago_id: crypto.randomUUID(), ...event })) } }
  }

  #faultOf(event: LagoEvent): unknown {
    if (!isTimestamp(event.timestamp)) return { timestamp: ['invalid_format'] }
    const missing = ['transaction_id', 'code'].filter((name) => !isText(event[name]))
    if (missing.length > 0) return Object.fromEntries(missing.map((name) => [name, ['value_is_mandatory']]))
    return this.expression(event)
  }

  #keyOf(event: LagoEvent): string {
    const { transaction_id: id, external_subscription_id: subscription } = event
    const parts = this.#store === 'postgres' ? [] : [event.timestamp, event.code]
    return JSON.stringify([id, subscription, ...parts])
  }

  #counts({ code, subscription, millionths }: Kept): boolean {
    const isKnown = this.subscriptions?.has(subscription) ?? subscription !== ''
    return isKnown && this.#codes.has(code) && millionths !== 0n
  }
}

function at(events: readonly LagoEvent[], faultOf: (event: LagoEvent) => unknown): object | undefined {
  const faults = events
    .map((event, index) => [index, faultOf(event)] as const)
    .filter(([, fault]) => fault !== undefined)
  return faults.length === 0 ? undefined : Object.fromEntries(faults)
}

function unprocessable(details: object): LagoAnswer {
  const error = { status: 422, error: 'Unprocessable Entity', code: 'validation_errors' }
  return { status: 422, body: { ...error, error_details: details } }
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}

/** Seconds, as a number or as text, with decimals or without; absent is the time when it comes. */
function isTimestamp(value: unknown): boolean {
  return value === undefined || /^\d+(?:\.\d+)?$/.test(String(value))
}

/** The sum of a field that is called `value`. What is no number counts nothing. */
function keptOf({ code, external_subscription_id: subscription, properties }: LagoEvent): Kept {
  const value = String(Object(properties).value)
  const [, sign = '', whole = '0', part = ''] = /^(-?)(\d+)(?:\.(\d{1,6}))?$/.exec(value) ?? []
  const millionths = BigInt(whole + part.padEnd(6, '0'))
  return {
    code: String(code),
    subscription: isText(subscription) ? subscription : '',
    millionths: sign === '-' ? -millionths : millionths,
  }
}
