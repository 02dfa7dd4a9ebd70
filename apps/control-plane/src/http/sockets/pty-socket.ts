import { randomTag } from '@wrenn/base'
import { type PtyInputFrame, ptyInputFrameSchema, ptyStartFrameSchema } from '@wrenn/protocol'
import { Signal } from '@wrenn/protocol/guest'
import { connectSession, parseSelector, type SessionEvent, selectTag, startSession } from '../../domain/session.js'
import type { Services } from '../context.js'
import { type Channel, type Message, parseFrame } from './channel.js'
import { OutputSender } from './output.js'
import { binaryInput, joinBinary } from './process-socket.js'
import { readInput } from './run-socket.js'

/** `/pty`: a terminal, new or taken up again by its tag; it outlives the socket. */
export async function ptyStream(channel: Channel, capsuleId: string, services: Services): Promise<void> {
  const message = await channel.next()
  if (message === undefined) return
  const frame = parseFrame(message, ptyStartFrameSchema)
  const tag = frame.type === 'connect' ? frame.tag : (frame.tag ?? randomTag('pty'))
  const { client } = services.host
  const selector = frame.type === 'connect' ? parseSelector(tag) : selectTag(tag)
  const events =
    frame.type === 'connect'
      ? connectSession(client, capsuleId, selector, frame.from_offset, channel.signal)
      : startSession(
          client,
          capsuleId,
          {
            cmd: frame.cmd,
            args: frame.args,
            envs: frame.envs,
            cwd: frame.cwd,
            user: frame.user,
            tag,
            stdin: true,
            timeoutMs: 0,
            foreground: true,
            pty: { cols: frame.cols, rows: frame.rows },
          },
          channel.signal,
        )
  await relayTerminal(channel, capsuleId, services, { events, selector, tag })
}

interface Terminal {
  readonly events: AsyncGenerator<SessionEvent>
  readonly selector: ReturnType<typeof parseSelector>
  readonly tag: string
}

async function relayTerminal(channel: Channel, capsuleId: string, services: Services, pty: Terminal): Promise<void> {
  const output = new OutputSender(channel, 'base64')
  let reading = false
  for await (const event of pty.events) {
    services.activity.touch(capsuleId)
    if (event.case === 'start') {
      await channel.send({ type: 'started', tag: event.value.tag ?? pty.tag, pid: event.value.pid })
      if (!reading)
        void readInput(
          channel,
          () => services.activity.touch(capsuleId),
          (message) => applyInput(channel, capsuleId, services, pty, toInput(message)),
        )
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
  channel: Channel,
  capsuleId: string,
  { host }: Services,
  { selector: process }: Terminal,
  input: Input,
): Promise<void> {
  const { client } = host
  if (input.type === 'bytes') {
    const value = joinBinary(channel, input.bytes)
    await client.sendInput({ capsuleId, input: { process, input: { input: { case: 'pty', value } } } })
  } else if (input.type === 'resize') {
    await client.resizePty({ capsuleId, process, cols: input.cols, rows: input.rows })
  } else {
    await client.signalProcess({ capsuleId, signal: { process, signal: Signal.SIGKILL } })
  }
}
