import { randomTag } from '@wrenn/base'
import { type PtyInputFrame, ptyInputFrameSchema, ptyStartFrameSchema } from '@wrenn/protocol'
import { Signal } from '@wrenn/protocol/guest'
import type { z } from 'zod'
import { parseSelector, type SessionEvent, selectTag, startRecorded } from '../../domain/commands/index.js'
import type { Services } from '../context.js'
import { type Message, parseFrame } from './channel.js'
import { OutputSender } from './output.js'
import { attach, beginningAt, binaryInput, joinBinary } from './process-socket.js'
import { applyWhenAwake, type Connection, readInput, sessionContext } from './run-socket.js'

/** `/pty`: a terminal, new or taken up again by its tag; it outlives the socket. */
export async function ptyStream(connection: Connection, services: Services): Promise<void> {
  const message = await connection.channel.next()
  if (message === undefined) return
  const frame = parseFrame(message, ptyStartFrameSchema)
  await relayTerminal(connection, services, await openTerminal(connection, services, frame))
}

async function openTerminal(connection: Connection, services: Services, frame: Frame): Promise<Terminal> {
  if (frame.type === 'connect') {
    const selector = parseSelector(frame.tag)
    return { events: await attach(connection, services, selector, frame.from_offset), selector, tag: frame.tag }
  }
  const tag = frame.tag ?? randomTag('pty')
  await services.wake.ready(connection.capsule, { signal: connection.channel.signal })
  const events = startRecorded(sessionContext(connection, services), {
    cmd: frame.cmd,
    args: frame.args,
    envs: frame.envs,
    cwd: frame.cwd,
    user: frame.user,
    tag,
    isNewTag: frame.tag === undefined,
    stdin: true,
    timeoutMs: 0,
    // A shell at its prompt waits for nobody: an open terminal is a stream, and what works in one that was left uses the CPU.
    foreground: false,
    pty: { cols: frame.cols, rows: frame.rows },
  })
  return { events, selector: selectTag(tag), tag }
}

type Frame = z.output<typeof ptyStartFrameSchema>

interface Terminal {
  readonly events: AsyncGenerator<SessionEvent>
  readonly selector: ReturnType<typeof parseSelector>
  readonly tag: string
}

async function relayTerminal(connection: Connection, services: Services, pty: Terminal): Promise<void> {
  const { channel, capsule } = connection
  const output = new OutputSender(channel, 'base64')
  const apply = (message: Message) => applyInput(connection, services, pty, toInput(message))
  let reading = false
  for await (const event of pty.events) {
    services.activity.touch(capsule.id)
    if (event.case === 'start') {
      const { pid, tag = pty.tag, offset } = event.value
      await channel.send({ type: 'started', tag, pid, ...beginningAt(offset) })
      if (!reading) void readInput(channel, apply)
      reading = true
    } else if (event.case === 'data') await output.data(event.value)
    else if (event.case === 'lost') await output.lost(event.value.from, event.value.to)
    else if (event.case === 'end') await output.exit(event.value)
  }
}

type Input = Exclude<PtyInputFrame, { type: 'input' }> | { readonly type: 'bytes'; readonly bytes: Uint8Array }

function toInput(message: Message): Input {
  if (message.isBinary) return { type: 'bytes', bytes: binaryInput(message) }
  const frame = parseFrame(message, ptyInputFrameSchema)
  return frame.type === 'input' ? { type: 'bytes', bytes: Buffer.from(frame.data, 'base64') } : frame
}

async function applyInput(
  connection: Connection,
  services: Services,
  { selector: process }: Terminal,
  input: Input,
): Promise<void> {
  const { client } = services.host
  const capsuleId = connection.capsule.id
  if (input.type === 'bytes') {
    const value = joinBinary(connection.channel, input.bytes)
    const bytes = { process, input: { input: { case: 'pty', value } } } as const
    await applyWhenAwake(connection, services, () => client.sendInput({ capsuleId, input: bytes }))
  } else if (input.type === 'resize') {
    const { cols, rows } = input
    await applyWhenAwake(connection, services, () => client.resizePty({ capsuleId, process, cols, rows }))
  } else {
    const signal = { process, signal: Signal.SIGKILL }
    await applyWhenAwake(connection, services, () => client.signalProcess({ capsuleId, signal }))
  }
}
