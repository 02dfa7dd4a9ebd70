import { randomBytes } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { CallOptions } from '@connectrpc/connect'
import { AppError } from '@wrenn/base'
import type { ProcessEvent, StartRequestSchema } from '@wrenn/protocol/guest'
import type { CreateCapsuleInput, FromDisk } from '../types.js'
import { asUser, type GuestClient, type GuestIdentity, type IdentifyAnswer } from './client.js'
import { guestError, isBrokenLine } from './error.js'
import { unreachable } from './pulse.js'

const RESUME_PAUSE_MS = 100
/** For a restored guest on a machine that is busy. */
const IDENTIFY_TIMEOUT_MS = 60_000

type StartMessage = MessageInitShape<typeof StartRequestSchema>

const WARM_UP_ROUNDS = 3

/** Runs the exec path as a client would, so that its code is warm in every guest made from the snapshot. */
export async function warmUp(client: GuestClient): Promise<void> {
  for (let round = 0; round < WARM_UP_ROUNDS; round++) {
    const process = { cmd: '/bin/sh', args: ['-c', 'echo; echo >&2; /bin/true'], envs: { A: '1' } }
    const start = {
      process,
      stdin: false,
      withOffsets: true,
      tag: `warm-${round}`,
      timeoutMs: 60_000,
      foreground: true,
    }
    for await (const _ of client.process.start(start)) {
      // only its side effect matters: loaded modules, compiled code, warm caches, open connections
    }
  }
}

/** Of services that start together with the guest, on a busy machine without hardware virtualization. */
const READY_TIMEOUT_SEC = 300

/** Waits until a shell line succeeds in the guest. @throws AppError `image_build_failed` when it never does */
export async function untilReady(client: GuestClient, line: string): Promise<void> {
  const script = `for i in $(seq ${READY_TIMEOUT_SEC}); do (${line}) && exit 0; sleep 1; done; exit 1`
  const process = { cmd: '/bin/sh', args: ['-c', script] }
  const start = { process, stdin: false, tag: 'ready', timeoutMs: 2 * READY_TIMEOUT_SEC * 1000, foreground: true }
  for await (const { event } of client.process.start(start)) {
    if (event?.event.case === 'end' && event.event.value.exitCode === 0) return
  }
  throw new AppError('image_build_failed', `The image's services were not ready in ${READY_TIMEOUT_SEC} s.`)
}

/** Random state that no other copy of the snapshot has. */
function freshness(): Pick<GuestIdentity, 'entropy' | 'machineId'> {
  return {
    entropy: randomBytes(64).toString('base64'),
    machineId: randomBytes(16).toString('hex'),
  }
}

/** Identifies a guest that is not a capsule yet, with the secret it has or gets; its code for the real one is then warm. */
export async function identifyWaiting(client: GuestClient, secret: string): Promise<string> {
  const answer = await client.identify({ ...freshness(), secret, hostname: 'capsule' }, IDENTIFY_TIMEOUT_MS)
  return answer.agentVersion
}

/** Makes a guest this capsule and no other: secret, names, right clock, fresh entropy, environment. */
export async function identify(client: GuestClient, input: CreateCapsuleInput, secret: string): Promise<string> {
  const { capsuleId, hostname, envs, defaultUser, defaultCwd } = input
  const answer = await client.identify(
    { ...freshness(), secret, capsuleId, hostname, envs, defaultUser, defaultCwd, forgetEnded: true },
    IDENTIFY_TIMEOUT_MS,
  )
  return answer.agentVersion
}

/** Tells a guest that went on from a saved state: the time, fresh entropy, and that its old connections are dead. */
export async function revive(client: GuestClient): Promise<IdentifyAnswer> {
  return await client.identify({ entropy: freshness().entropy, resumed: true }, IDENTIFY_TIMEOUT_MS)
}

/**
 * Makes a guest that was booted on a capsule's disk this capsule again; its machine id is on the disk. A default user that its
 * owner has removed since, and knows to be gone, does not keep the capsule from starting.
 */
export async function identifyBooted(
  client: GuestClient,
  who: Pick<GuestIdentity, 'capsuleId' | 'hostname' | 'secret'>,
  { envs, defaultUser, defaultCwd }: FromDisk,
): Promise<void> {
  const { entropy } = freshness()
  await client.identify({ ...who, entropy, envs }, IDENTIFY_TIMEOUT_MS)
  if (defaultUser === '' && defaultCwd === '') return
  await client.identify({ defaultUser, defaultCwd }, IDENTIFY_TIMEOUT_MS).catch((error: unknown) => {
    if (!AppError.is(error, 'invalid_request')) throw error
  })
}

/** Makes a copy of a guest a capsule of its own. Its processes, files and default user stay those of its source; `envs` is added. */
export async function identifyCopy(
  client: GuestClient,
  { capsuleId, hostname, secret, envs }: Pick<GuestIdentity, 'capsuleId' | 'hostname' | 'secret' | 'envs'>,
): Promise<void> {
  await client.identify({ ...freshness(), capsuleId, hostname, secret, resumed: true }, IDENTIFY_TIMEOUT_MS)
  if (Object.keys(envs).length === 0) return
  const inherited = await client.envs()
  await client.identify({ envs: { ...inherited, ...envs } }, IDENTIFY_TIMEOUT_MS)
}

/** Makes a guest that was restored from a user's snapshot a new capsule; what ran in the snapshot runs on. */
export async function identifyFromSnapshot(
  client: GuestClient,
  input: CreateCapsuleInput,
  secret: string,
): Promise<string> {
  const { capsuleId, hostname, envs, defaultUser, defaultCwd } = input
  const answer = await client.identify(
    { ...freshness(), secret, capsuleId, hostname, envs, defaultUser, defaultCwd, resumed: true },
    IDENTIFY_TIMEOUT_MS,
  )
  return answer.agentVersion
}

interface FollowOptions {
  readonly signal: AbortSignal
  /** Says why the guest cannot answer any more, when it cannot. */
  readonly gone: () => AppError | undefined
  /** The line to the capsule's guest at this moment: a rollback gives it another one. */
  readonly line: () => Promise<GuestClient>
  /** When the process ends by its own timeout, on the clock of `performance.now()`. @default never */
  readonly dueAtMs?: number | undefined
}

/**
 * Starts a process and follows it; a broken line is taken up again at the offset it broke at.
 * @throws AppError `guest_unreachable` when the guest gives no sign for as long as `Patience` says; the process may live on
 */
export async function* startProcess(
  client: GuestClient,
  start: StartMessage,
  user: string,
  options: FollowOptions,
): AsyncGenerator<ProcessEvent> {
  const position: Position = { chosen: undefined, started: false, offset: 0n, ended: false }
  const open: Open = (line, { headers, ...call }) =>
    line.process.start({ ...start, withOffsets: true }, { ...call, headers: { ...headers, ...asUser(user) } })
  yield* follow(client, open, position, options)
}

/** Follows a process that runs already. `fromOffset` replays what is kept from there. @throws as `startProcess` */
export async function* connectProcess(
  client: GuestClient,
  selector: { readonly pid: number } | { readonly tag: string },
  fromOffset: bigint | undefined,
  options: FollowOptions,
): AsyncGenerator<ProcessEvent> {
  const chosen: Chosen = 'pid' in selector ? { case: 'pid', value: selector.pid } : { case: 'tag', value: selector.tag }
  const position: Position = { chosen, started: false, offset: fromOffset, ended: false }
  yield* follow(client, takeUp(chosen, position), position, options)
}

type Chosen = { readonly case: 'pid'; readonly value: number } | { readonly case: 'tag'; readonly value: string }

interface Position {
  /** What to ask for again; absent until a process that is being started has said who it is. */
  chosen: Chosen | undefined
  /** Whether its start was told. */
  started: boolean
  /** Of the byte that comes next; absent until the guest tells where a follower from now on begins. */
  offset: bigint | undefined
  ended: boolean
}

type EventStream = AsyncIterable<{ readonly event?: ProcessEvent | undefined }>

type StreamCall = Pick<CallOptions, 'signal' | 'timeoutMs'> & { readonly headers: Record<string, string> }
type Open = (client: GuestClient, call: StreamCall) => EventStream

function takeUp(chosen: Chosen, position: Position): Open {
  return ({ process }, call) => process.connect({ process: { selector: chosen }, ...from(position) }, call)
}

async function* follow(
  client: GuestClient,
  first: Open,
  position: Position,
  options: FollowOptions,
): AsyncGenerator<ProcessEvent> {
  let [line, open] = [client, first]
  let brokenAtMs: number | undefined
  for (;;) {
    try {
      for await (const event of listen(line, open, options)) {
        brokenAtMs = undefined
        const resumed = position.started && event.event.case === 'start'
        advance(position, event)
        if (!resumed) yield event
      }
      if (position.ended) return
      throw new AppError('guest_error', 'The guest agent ended the stream before the process ended.')
    } catch (error) {
      if (options.signal.aborted) return
      const gone = options.gone()
      if (gone !== undefined) throw gone
      if (position.started && AppError.is(guestError(error), 'process_not_found', 'not_found'))
        throw agentStartedAnew(error)
      if (position.chosen === undefined || !isBrokenLine(error)) throw guestError(error)
      brokenAtMs ??= performance.now()
      if (isGivenUp(brokenAtMs, line, options)) throw unreachable(performance.now() - brokenAtMs, error)
      open = takeUp(position.chosen, position)
    }
    await new Promise((resolve) => setTimeout(resolve, RESUME_PAUSE_MS))
    line = await options.line()
  }
}

/** Its agent knows no more of what it has told the start of: whoever killed it inside the guest took that from it. */
function agentStartedAnew(cause: unknown): AppError {
  const message =
    "The capsule's guest agent was ended inside the guest and started anew; the output and the end of the command are lost. It may still run."
  return new AppError('guest_error', message, { cause })
}

/** Where every attempt fails at once nothing is silent, so the bounds are counted here. */
function isGivenUp(brokenAtMs: number, { pulse }: GuestClient, { dueAtMs }: FollowOptions): boolean {
  const { silenceMs, overdueMs } = pulse.patience
  const now = performance.now()
  const isOverdue = dueAtMs !== undefined && now >= Math.max(dueAtMs, brokenAtMs) + overdueMs
  return isOverdue || now >= brokenAtMs + silenceMs
}

/** One stream of events, for as long as its line holds. */
async function* listen(
  client: GuestClient,
  open: Open,
  { signal, dueAtMs }: FollowOptions,
): AsyncGenerator<ProcessEvent> {
  const { pulse } = client
  const { stuckMs, keepaliveMs } = pulse.patience
  using watch = pulse.watch({ dueAtMs, lineMs: stuckMs })
  const headers = { 'keepalive-ping-interval': String(keepaliveMs / 1000) }
  try {
    watch.waits()
    const call = { headers, signal: AbortSignal.any([signal, watch.signal]), timeoutMs: 0 }
    for await (const { event } of open(client, call)) {
      if (event === undefined) continue
      watch.got(event.event.case !== 'keepalive')
      yield event
      watch.waits()
    }
  } catch (error) {
    throw watch.failure ?? error
  }
}

function from({ offset }: Position): { withOffsets: true; fromOffset?: bigint } {
  return { withOffsets: true, ...(offset === undefined ? {} : { fromOffset: offset }) }
}

function advance(position: Position, { event }: ProcessEvent): void {
  switch (event.case) {
    case 'start':
      position.started = true
      position.chosen = { case: 'pid', value: event.value.pid }
      position.offset ??= event.value.offset
      break
    case 'data':
      position.offset = endOf(event.value, position.offset)
      break
    case 'lost':
      position.offset = event.value.to
      break
    case 'end':
      position.ended = true
      break
    default:
      break
  }
}

type Data = Extract<ProcessEvent['event'], { case: 'data' }>['value']

function endOf({ offset, output }: Data, expected: bigint | undefined): bigint | undefined {
  const start = offset ?? expected
  return start === undefined ? undefined : start + BigInt(output.value?.length ?? 0)
}
