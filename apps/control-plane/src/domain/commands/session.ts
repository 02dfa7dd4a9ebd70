import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import type { ProcessEvent, ProcessSelector } from '@wrenn/protocol/guest'
import { fromHostError, isAway, isConnectionLoss } from '../../host/errors.js'
import type { HostClient } from '../../host/transport.js'
import type { RecordAccess } from '../audit/index.js'
import type { CapsuleRef, Wake } from '../capsules/index.js'

const RECONNECT_MS = 90_000
const RECONNECT_EVERY_MS = 200
/** How long a host may refuse a session of a capsule that runs: a rollback is under way, or it just woke. */
const REFUSED_MS = 10_000
/** How the guest before a rollback, or the one after it, may answer those who followed a process. */
const mayBeOfRollback: ReadonlySet<string> = new Set(['process_not_found', 'guest_error', 'guest_unreachable'])

type Events = AsyncIterable<{ readonly event?: ProcessEvent | undefined }>
/** `start`, `data`, `lost`, `end` and keepalives, as the guest says them. */
export type SessionEvent = ProcessEvent['event']

/** The capsule of a session, and who waits for it. */
export interface SessionContext {
  readonly client: HostClient
  readonly wake: Pick<Wake, 'afterRefusal' | 'rolledBackSince' | 'attempt'>
  readonly capsule: CapsuleRef
  /** Of the capsule when the session began; tells rollbacks before it from those after. */
  readonly generation: number
  /** Ends the session, not the process. */
  readonly signal: AbortSignal
  /** Notes what is started. @default nothing does */
  readonly record?: RecordAccess | undefined
}

/** A process that is to be started and followed. */
export interface StartOptions {
  readonly cmd: string
  readonly args: readonly string[]
  readonly envs: Readonly<Record<string, string>>
  readonly cwd: string | undefined
  readonly user: string | undefined
  /** Found again by it after a broken connection. */
  readonly tag: string
  /** Made for this process: nothing else ever had it. A tag of the caller's may have been used before. */
  readonly isNewTag: boolean
  readonly stdin: boolean
  /** Of the guest's time, which stands still while the capsule sleeps; 0: none. */
  readonly timeoutMs: number
  /** Somebody waits for its end, which keeps the capsule from being paused as idle. */
  readonly foreground: boolean
  readonly pty?: { readonly cols: number; readonly rows: number }
}

/** A selector by tag, whatever the tag looks like; text of users goes through {@link parseSelector}. */
export function selectTag(tag: string): { selector: { case: 'tag'; value: string } } {
  return { selector: { case: 'tag', value: tag } }
}

/** All digits are a process id, anything else is a tag. */
export function parseSelector(text: string) {
  if (!/^\d+$/.test(text)) return selectTag(text)
  const pid = Number(text)
  if (pid > 0xffff_ffff) throw new AppError('process_not_found', `There is no process ${text}.`)
  return { selector: { case: 'pid' as const, value: pid } }
}

/**
 * Starts a process and yields its events until it ends. When the connection to the host breaks (its agent restarts, say),
 * the session is taken up where it was: nothing is lost and nothing comes twice. While the capsule sleeps the session is
 * silent, and goes on when it runs again, however long that takes.
 * @throws AppError `rolled_back` when the capsule was put back to before the process; why the capsule ended, when it did
 */
export function startSession(context: SessionContext, options: StartOptions): AsyncGenerator<SessionEvent> {
  const { client, capsule, signal } = context
  const { cmd, args, envs, cwd, pty } = options
  const start = (): Events =>
    client.startProcess(
      {
        capsuleId: capsule.id,
        user: options.user ?? '',
        start: {
          process: { cmd, args: [...args], envs: { ...envs }, ...(cwd === undefined ? {} : { cwd }) },
          tag: options.tag,
          stdin: options.stdin,
          withOffsets: true,
          timeoutMs: Math.ceil(options.timeoutMs),
          foreground: options.foreground,
          ...(pty === undefined ? {} : { pty: { size: pty } }),
        },
      },
      { signal },
    )
  const plan = {
    start,
    isNewTag: options.isNewTag,
    process: selectTag(options.tag),
    from: 0,
    asleep: 'refuse',
  } as const
  return new Session(context, plan).events()
}

/**
 * Follows a process that runs, from `fromOffset` or from now. With an offset it is somebody who was here before and comes back
 * (a restarted control plane breaks every stream): while the capsule sleeps that one waits, as if the line had never broken.
 * Without an offset it is a new wish about a capsule that cannot fulfil it, which is told at once.
 */
export function connectSession(
  context: SessionContext,
  process: ReturnType<typeof parseSelector>,
  fromOffset: number | undefined,
): AsyncGenerator<SessionEvent> {
  const asleep = fromOffset === undefined ? 'refuse' : 'hold'
  return new Session(context, { start: undefined, isNewTag: false, process, from: fromOffset, asleep }).events()
}

interface SessionPlan {
  /** Absent: the process exists. */
  readonly start: (() => Events) | undefined
  readonly isNewTag: boolean
  readonly process: Pick<ProcessSelector, 'selector'>
  /** Offset of the first byte wanted; absent: the next one that comes. */
  readonly from: number | undefined
  /** Until the process was seen; afterwards a session always waits, and wakes nobody. */
  readonly asleep: 'refuse' | 'hold'
}

type StartEvent = Extract<SessionEvent, { case: 'start' }>['value']

/** Whether the process runs: nobody tried; one attempt went wrong in a way that leaves it open; it was seen. */
type Known = 'not_started' | 'unsure' | 'seen'

class Session {
  readonly #context: SessionContext
  readonly #plan: SessionPlan
  #position: number | undefined
  #generation: number
  #known: Known
  #process: StartEvent | undefined
  /** What resolves `unsure` is tried in this order. */
  #attempts: ('connect' | 'start')[] = []
  #troubleSince: number | undefined

  constructor(context: SessionContext, plan: SessionPlan) {
    this.#context = context
    this.#plan = plan
    this.#position = plan.from
    this.#generation = context.generation
    this.#known = 'not_started'
  }

  async *events(): AsyncGenerator<SessionEvent> {
    for (;;) {
      try {
        const items = (await this.#open())[Symbol.asyncIterator]()
        for (let item = await items.next(); item.done !== true; item = await items.next()) {
          const part = item.value.event?.event
          if (part?.case === undefined) continue
          this.#troubleSince = undefined
          // Connect tells nobody of a reader that leaves: the call is over when the end of its stream was read, too.
          if (part.case === 'end') void items.next().catch(() => {})
          if (this.#isNews(part)) yield part
          if (part.case === 'end') return
        }
        throw new AppError('guest_error', 'The process stream ended before the process did.')
      } catch (error) {
        await this.#recover(error)
      }
    }
  }

  /** Keeps account of an event. @returns whether the reader has not heard it */
  #isNews(part: SessionEvent): boolean {
    if (part.case === 'start') {
      const isFirst = this.#process === undefined
      this.#process ??= part.value
      this.#known = 'seen'
      // Who follows from now on must come back to where that was.
      if (part.value.offset !== undefined) this.#position ??= Number(part.value.offset)
      return isFirst
    }
    if (part.case === 'data') this.#position = endOf(part.value, this.#position)
    return part.case !== 'keepalive'
  }

  async #open(): Promise<Events> {
    const { start } = this.#plan
    if (this.#known === 'seen') return await this.#takeUp()
    if (start === undefined) return this.#connect()
    if (this.#known === 'not_started') return start()
    return this.#attempts[0] === 'connect' ? this.#connect() : start()
  }

  #connect(): Events {
    const { client, capsule, signal } = this.#context
    const from = this.#position === undefined ? {} : { fromOffset: BigInt(this.#position) }
    return client.connectProcess(
      { capsuleId: capsule.id, connect: { process: this.#plan.process, withOffsets: true, ...from } },
      { signal },
    )
  }

  /** A process that was there before a rollback may be there after it, with less output; it goes on from what it has. */
  async #takeUp(): Promise<Events> {
    const { client, capsule, wake, signal } = this.#context
    const generation = await wake.rolledBackSince(capsule.id, this.#generation)
    if (generation === undefined) return this.#connect()
    const { processes } = await client.listProcesses({ capsuleId: capsule.id, includeEnded: true }, { signal })
    const same = processes.find(({ pid, tag }) => pid === this.#process?.pid && tag === this.#process.tag)
    if (same === undefined) {
      throw new AppError(
        'rolled_back',
        'The capsule was rolled back to a moment at which this process did not exist, or started from its disk.',
      )
    }
    this.#generation = generation
    if (this.#position !== undefined) this.#position = Math.min(this.#position, Number(same.outputOffset))
    return this.#connect()
  }

  /** Waits until it makes sense to open again. @throws AppError when it never will */
  async #recover(error: unknown): Promise<void> {
    const failure = fromHostError(error)
    // What we ourselves say is final; so is an answer to the one who has gone.
    if (this.#context.signal.aborted || AppError.is(error)) throw failure
    if (this.#tryNext(failure)) return
    const lost = isConnectionLoss(error)
    if (lost || isAway(failure)) {
      await this.#tryAgain(failure, RECONNECT_MS)
    } else {
      if (!(await this.#mayGoOn(failure))) throw failure
      const asleep = this.#known === 'seen' ? 'wait' : this.#plan.asleep
      const { slept } = await this.#context.wake.afterRefusal(this.#context.capsule, {
        signal: this.#context.signal,
        asleep,
      })
      if (slept) this.#troubleSince = undefined
      else await this.#tryAgain(failure, REFUSED_MS)
    }
    // A host that is not ready has started nothing; where the line broke, or a guest was stopped, the process may run.
    if (!isAway(failure) || lost) this.#isUnsure()
  }

  /** A host refuses a capsule that sleeps; of one that was put back it may know no process, or lose the guest. */
  async #mayGoOn({ code }: AppError): Promise<boolean> {
    if (code === 'invalid_state' || code === 'rolled_back') return true
    if (this.#known !== 'seen' || !mayBeOfRollback.has(code)) return false
    return (await this.#context.wake.rolledBackSince(this.#context.capsule.id, this.#generation)) !== undefined
  }

  #isUnsure(): void {
    if (this.#known === 'seen' || this.#plan.start === undefined) return
    this.#known = 'unsure'
    // By a tag of the caller's an earlier process could be found; a second start of one that runs is a conflict.
    this.#attempts = this.#plan.isNewTag ? ['connect', 'start'] : ['start', 'connect']
  }

  /** Whether the answer to one way of opening says that the other is right. */
  #tryNext({ code }: AppError): boolean {
    if (this.#known !== 'unsure' || this.#attempts.length < 2) return false
    const [tried] = this.#attempts
    if (code !== (tried === 'connect' ? 'process_not_found' : 'conflict')) return false
    this.#attempts.shift()
    return true
  }

  async #tryAgain(failure: AppError, withinMs: number): Promise<void> {
    this.#troubleSince ??= performance.now()
    if (performance.now() - this.#troubleSince > withinMs) throw failure
    await delay(RECONNECT_EVERY_MS, undefined, { signal: this.#context.signal })
  }
}

type Data = Extract<SessionEvent, { case: 'data' }>['value']

function endOf(data: Data, position: number | undefined): number | undefined {
  const length = data.output.value?.length ?? 0
  if (data.offset !== undefined) return Number(data.offset) + length
  return position === undefined ? undefined : position + length
}

/** The end of a process in the shell's terms. */
export interface ProcessExit {
  readonly exitCode: number
  readonly signal: number | undefined
  readonly timedOut: boolean
  readonly oomKilled: boolean
}

/** Exit code after a timeout, as coreutils' `timeout` has it. */
const TIMEOUT_EXIT_CODE = 124
const SIGNAL_EXIT_BASE = 128

/** The end of a process in the shell's terms: 128 + n for signal n, 124 for a timeout. */
export function exitInfo(end: Extract<SessionEvent, { case: 'end' }>['value']): ProcessExit {
  const { signal, timedOut, oomKilled } = end
  const bySignal = signal === undefined || signal === 0 ? end.exitCode : SIGNAL_EXIT_BASE + signal
  return { exitCode: timedOut ? TIMEOUT_EXIT_CODE : bySignal, signal: signal || undefined, timedOut, oomKilled }
}
