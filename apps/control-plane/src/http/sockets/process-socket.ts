import { AppError, randomTag } from '@wrenn/base'
import {
  decodeBinaryFrame,
  execStartFrameSchema,
  type ProcessInputFrame,
  processInputFrameSchema,
} from '@wrenn/protocol'
import { type ProcessSelector, Signal } from '@wrenn/protocol/guest'
import {
  connectSession,
  parseSelector,
  type SessionEvent,
  selectTag,
  startRecorded,
  toSignal,
} from '../../domain/commands/index.js'
import type { Services } from '../context.js'
import { type Channel, type Message, parseFrame } from './channel.js'
import { type OutputEncoding, OutputSender } from './output.js'
import { applyWhenAwake, type Connection, readInput, sessionContext } from './run-socket.js'

const MAX_INPUT_BYTES = 256 * 1024

type Selector = Pick<ProcessSelector, 'selector'>

/** `/exec/stream`: the first frame starts a process; it goes on when the socket closes. */
export async function execStream(connection: Connection, services: Services): Promise<void> {
  const { channel, capsule } = connection
  const message = await channel.next()
  if (message === undefined) return
  const frame = parseFrame(message, execStartFrameSchema)
  const tag = frame.tag ?? randomTag('proc')
  await services.wake.ready(capsule, { signal: channel.signal })
  const events = startRecorded(sessionContext(connection, services), {
    cmd: frame.cmd,
    args: frame.args,
    envs: frame.envs,
    cwd: frame.cwd,
    user: frame.user,
    tag,
    isNewTag: frame.tag === undefined,
    stdin: frame.stdin,
    timeoutMs: (frame.timeout_sec ?? 0) * 1000,
    foreground: true,
  })
  await relay(connection, services, { events, selector: selectTag(tag), tag, encoding: frame.encoding })
}

interface ProcessStreamOptions {
  readonly selector: string
  readonly fromOffset: number | undefined
  readonly encoding: OutputEncoding
}

/** `/processes/{selector}/stream`: follows a process that exists. */
export async function processStream(
  connection: Connection,
  services: Services,
  options: ProcessStreamOptions,
): Promise<void> {
  const selector = parseSelector(options.selector)
  const tag = selector.selector.case === 'tag' ? selector.selector.value : undefined
  const events = await attach(connection, services, selector, options.fromOffset)
  await relay(connection, services, { events, selector, tag, encoding: options.encoding })
}

/** Follows a process once its capsule runs: one who comes back with an offset waits for that, a newcomer does not. */
export async function attach(
  connection: Connection,
  services: Services,
  selector: ReturnType<typeof parseSelector>,
  fromOffset: number | undefined,
): Promise<AsyncGenerator<SessionEvent>> {
  const { signal } = connection.channel
  await services.wake.ready(connection.capsule, { signal, asleep: fromOffset === undefined ? 'refuse' : 'hold' })
  return connectSession(sessionContext(connection, services), selector, fromOffset)
}

interface Relay {
  readonly events: AsyncGenerator<SessionEvent>
  readonly selector: Selector
  readonly tag: string | undefined
  readonly encoding: OutputEncoding
}

async function relay(connection: Connection, services: Services, session: Relay): Promise<void> {
  const { channel, capsule } = connection
  const output = new OutputSender(channel, session.encoding)
  const apply = (message: Message) => applyInput(connection, services, session.selector, toInput(message))
  let reading = false
  for await (const event of session.events) {
    services.activity.touch(capsule.id)
    if (event.case === 'start') {
      const tag = event.value.tag ?? session.tag
      const { pid, offset } = event.value
      await channel.send({ type: 'start', pid, ...(tag === undefined ? {} : { tag }), ...beginningAt(offset) })
      if (!reading) void readInput(channel, apply)
      reading = true
    } else if (event.case === 'data') await output.data(event.value)
    else if (event.case === 'lost') await output.lost(event.value.from, event.value.to)
    else if (event.case === 'end') await output.exit(event.value)
  }
}

/** The offset of a start frame. */
export function beginningAt(offset: bigint | undefined): { offset?: number } {
  return offset === undefined ? {} : { offset: Number(offset) }
}

type Input = Exclude<ProcessInputFrame, { type: 'stdin' }> | { readonly type: 'bytes'; readonly bytes: Uint8Array }

function toInput(message: Message): Input {
  if (message.isBinary) return { type: 'bytes', bytes: binaryInput(message) }
  const frame = parseFrame(message, processInputFrameSchema)
  return frame.type === 'stdin' ? { type: 'bytes', bytes: Buffer.from(frame.data, 'base64') } : frame
}

/** @throws AppError `invalid_request` */
export function binaryInput(message: Message): Uint8Array {
  const frame = decodeBinaryFrame(message.data)
  if (frame?.kind !== 'input')
    throw new AppError('invalid_request', 'A binary frame must be input: kind 0, offset 0, bytes.')
  return frame.payload
}

async function applyInput(connection: Connection, services: Services, process: Selector, input: Input): Promise<void> {
  const { client } = services.host
  const capsuleId = connection.capsule.id
  if (input.type === 'bytes') {
    const value = joinBinary(connection.channel, input.bytes)
    const bytes = { process, input: { input: { case: 'stdin', value } } } as const
    await applyWhenAwake(connection, services, () => client.sendInput({ capsuleId, input: bytes }))
  } else if (input.type === 'stdin_close') {
    await applyWhenAwake(connection, services, () => client.closeStdin({ capsuleId, process }))
  } else {
    const signal = input.type === 'stop' ? Signal.SIGKILL : toSignal(input.signal)
    await applyWhenAwake(connection, services, () => client.signalProcess({ capsuleId, signal: { process, signal } }))
  }
}

/** Adds binary input that waits already, so that a fast sender costs few calls. */
export function joinBinary(channel: Channel, first: Uint8Array): Uint8Array {
  const parts = [first]
  let size = first.length
  while (size < MAX_INPUT_BYTES) {
    const more = channel.takeIf(({ isBinary, data }) => isBinary && decodeBinaryFrame(data)?.kind === 'input')
    if (more === undefined) break
    const bytes = binaryInput(more)
    parts.push(bytes)
    size += bytes.length
  }
  return parts.length === 1 ? first : Buffer.concat(parts)
}
