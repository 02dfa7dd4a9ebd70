import { randomBytes } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError } from '@wrenn/base'
import type { ProcessEvent, StartRequestSchema } from '@wrenn/protocol/guest'
import { asUser, type GuestClient, type GuestIdentity, guestError, isBrokenLine } from './guest-client.js'
import type { CreateCapsuleInput } from './types.js'

/** How long a broken line to the guest is tried again before the stream fails. */
const RESUME_TIMEOUT_MS = 30_000
const RESUME_PAUSE_MS = 100
/** For a restored guest on a machine that is busy. */
const IDENTIFY_TIMEOUT_MS = 60_000

export type StartMessage = MessageInitShape<typeof StartRequestSchema>

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

export interface FollowOptions {
  readonly signal: AbortSignal
  /** Says why the guest cannot answer any more, when it cannot. */
  readonly gone: () => AppError | undefined
}

/** Starts a process and follows it; a broken line is taken up again at the offset it broke at. */
export async function* startProcess(
  client: GuestClient,
  start: StartMessage,
  user: string,
  options: FollowOptions,
): AsyncGenerator<ProcessEvent> {
  const position: Position = { pid: undefined, offset: 0n, ended: false }
  const events = client.process.start(
    { ...start, withOffsets: true },
    { headers: asUser(user), signal: options.signal, timeoutMs: 0 },
  )
  yield* follow(client, events, position, options)
}

/** Follows a process that runs already. `fromOffset` replays what is kept from there. */
export async function* connectProcess(
  client: GuestClient,
  selector: { readonly pid: number } | { readonly tag: string },
  fromOffset: bigint | undefined,
  options: FollowOptions,
): AsyncGenerator<ProcessEvent> {
  const position: Position = { pid: undefined, offset: fromOffset ?? 0n, ended: false }
  const process =
    'pid' in selector
      ? ({ selector: { case: 'pid', value: selector.pid } } as const)
      : ({ selector: { case: 'tag', value: selector.tag } } as const)
  const events = client.process.connect(
    { process, ...(fromOffset === undefined ? {} : { fromOffset }) },
    { signal: options.signal, timeoutMs: 0 },
  )
  yield* follow(client, events, position, options)
}

interface Position {
  pid: number | undefined
  offset: bigint
  ended: boolean
}

type EventStream = AsyncIterable<{ readonly event?: ProcessEvent | undefined }>

async function* follow(
  client: GuestClient,
  first: EventStream,
  position: Position,
  options: FollowOptions,
): AsyncGenerator<ProcessEvent> {
  let events = first
  let giveUpAt: number | undefined
  for (;;) {
    try {
      for await (const { event } of events) {
        if (event === undefined) continue
        giveUpAt = undefined
        const resumed = position.pid !== undefined && event.event.case === 'start'
        advance(position, event)
        if (!resumed) yield event
      }
      if (position.ended) return
      throw new AppError('guest_error', 'The guest agent ended the stream before the process ended.')
    } catch (error) {
      if (options.signal.aborted) return
      const gone = options.gone()
      if (gone !== undefined) throw gone
      if (position.pid === undefined || !isBrokenLine(error)) throw guestError(error)
      giveUpAt ??= performance.now() + RESUME_TIMEOUT_MS
      if (performance.now() > giveUpAt) throw guestError(error)
    }
    await new Promise((resolve) => setTimeout(resolve, RESUME_PAUSE_MS))
    events = client.process.connect(
      { process: { selector: { case: 'pid', value: position.pid } }, fromOffset: position.offset },
      { signal: options.signal, timeoutMs: 0 },
    )
  }
}

function advance(position: Position, { event }: ProcessEvent): void {
  switch (event.case) {
    case 'start':
      position.pid = event.value.pid
      break
    case 'data':
      position.offset = (event.value.offset ?? position.offset) + BigInt(event.value.output.value?.length ?? 0)
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
