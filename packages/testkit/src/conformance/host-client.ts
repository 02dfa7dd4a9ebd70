import { Code, ConnectError, type createClient } from '@connectrpc/connect'
import { ERROR_CODE_HEADER } from '@wrenn/protocol'
import type { ProcessEvent, ProcessInfo } from '@wrenn/protocol/guest'
import type { HostService } from '@wrenn/protocol/host'

export type HostClient = ReturnType<typeof createClient<typeof HostService>>
export type Event = ProcessEvent['event']

export interface StartOptions {
  readonly tag?: string
  readonly stdin?: boolean
  readonly timeoutMs?: number
  readonly foreground?: boolean
}

export const codeOf = (thrown: unknown): string | undefined =>
  thrown instanceof ConnectError ? (thrown.metadata.get(ERROR_CODE_HEADER) ?? Code[thrown.code]) : undefined

/** The Wrenn code that a call fails with. */
export async function failure(call: Promise<unknown>): Promise<string | undefined> {
  try {
    await call
  } catch (error) {
    return codeOf(error)
  }
  throw new Error('The call did not fail.')
}

/** All messages of a stream. */
export async function drain<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const message of stream) all.push(message)
  return all
}

export async function collect(events: AsyncIterable<{ event?: ProcessEvent | undefined }>) {
  const seen = (await drain(events)).flatMap(({ event }) => (event === undefined ? [] : [event.event]))
  const end = seen.find((event) => event.case === 'end')?.value
  return { seen, end, stdout: outputOf(seen, 'stdout'), stderr: outputOf(seen, 'stderr') }
}

function outputOf(events: readonly Event[], kind: 'stdout' | 'stderr'): string {
  const bytes = events.flatMap((event) =>
    event.case === 'data' && event.value.output.case === kind ? [event.value.output.value] : [],
  )
  return Buffer.concat(bytes).toString()
}

/** A capsule as a client of its host sees it. */
export class TestCapsule {
  readonly client: HostClient
  readonly id: string

  constructor(client: HostClient, id: string) {
    this.client = client
    this.id = id
  }

  start(cmd: string, args: string[], more: StartOptions = {}, signal?: AbortSignal) {
    const start = { process: { cmd, args }, withOffsets: true, stdin: false, ...more }
    return this.client.startProcess({ capsuleId: this.id, start }, signal && { signal })
  }

  shell(line: string, more: StartOptions = {}) {
    return this.start('/bin/sh', ['-c', line], more)
  }

  /** Standard output of a command that must succeed. */
  async output(line: string): Promise<string> {
    return await this.outputOf('/bin/sh', ['-c', line])
  }

  async outputOf(cmd: string, args: string[]): Promise<string> {
    const { end, stdout, stderr } = await collect(this.start(cmd, args))
    if (end?.exitCode !== 0) throw new Error(`${cmd} ${args.join(' ')}: ${end?.status} ${stderr}`)
    return stdout.trim()
  }

  /** Starts a process that runs on without a follower. */
  async launch(line: string, tag: string, more: StartOptions = {}): Promise<void> {
    const leave = new AbortController()
    await this.#first(this.start('/bin/sh', ['-c', line], { tag, ...more }, leave.signal), leave, () => true)
  }

  /** Follows a process from the first byte of its output until `isEnough`; returns the output. */
  async watch(tag: string, isEnough: (output: string) => boolean, fromOffset = 0n): Promise<string> {
    const leave = new AbortController()
    const process = { selector: { case: 'tag' as const, value: tag } }
    const events = this.client.connectProcess(
      { capsuleId: this.id, connect: { process, fromOffset } },
      { signal: leave.signal },
    )
    let output = ''
    await this.#first(events, leave, (event) => {
      if (event.case === 'data') output += Buffer.from(event.value.output.value ?? []).toString()
      if (event.case === 'end') throw new Error(`${tag} ended after: ${output}`)
      return isEnough(output)
    })
    return output
  }

  async #first(
    events: AsyncIterable<{ event?: ProcessEvent | undefined }>,
    leave: AbortController,
    isWanted: (event: Event) => boolean,
  ): Promise<void> {
    try {
      for await (const { event } of events) if (event !== undefined && isWanted(event.event)) leave.abort()
    } catch (error) {
      if (!leave.signal.aborted || ConnectError.from(error).code !== Code.Canceled) throw error
    }
    if (!leave.signal.aborted) throw new Error('The stream ended too early.')
  }

  async input(tag: string, text: string): Promise<void> {
    const process = { selector: { case: 'tag' as const, value: tag } }
    const input = { input: { case: 'stdin' as const, value: Buffer.from(text) } }
    await this.client.sendInput({ capsuleId: this.id, input: { process, input } })
  }

  async processes(): Promise<ProcessInfo[]> {
    return (await this.client.listProcesses({ capsuleId: this.id })).processes
  }

  async tags(): Promise<string[]> {
    return (await this.processes()).flatMap(({ tag }) => tag ?? []).sort()
  }

  async write(path: string, text: string): Promise<void> {
    const capsuleId = this.id
    async function* parts() {
      yield { part: { case: 'open' as const, value: { capsuleId, path, user: '' } } }
      yield { part: { case: 'chunk' as const, value: Buffer.from(text) } }
      yield { part: { case: 'complete' as const, value: true } }
    }
    await this.client.writeFile(parts())
  }

  async read(path: string): Promise<string> {
    const messages = await drain(this.client.readFile({ capsuleId: this.id, path }))
    return Buffer.concat(messages.flatMap(({ part }) => (part.case === 'chunk' ? [part.value] : []))).toString()
  }

  async destroy(): Promise<void> {
    await this.client.destroyCapsule({ capsuleId: this.id })
  }
}
