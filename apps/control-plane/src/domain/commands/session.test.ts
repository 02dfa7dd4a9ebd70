import { create } from '@bufbuild/protobuf'
import { Code, ConnectError } from '@connectrpc/connect'
import { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER, type ErrorCode } from '@wrenn/protocol'
import { type ProcessEvent, ProcessEventSchema } from '@wrenn/protocol/guest'
import { describe, expect, it } from 'vitest'
import type { HostClient } from '../../host/transport.js'
import { connectSession, type SessionContext, type SessionEvent, selectTag, startSession } from './session.js'

const CAPSULE = { teamId: 'team', id: 'cl-0000000000000000000000000' }

type Script = readonly (ProcessEvent | Error)[]
type Call = readonly [method: 'start' | 'connect', from?: number | undefined]

const started = create(ProcessEventSchema, { event: { case: 'start', value: { pid: 7, tag: 'mine', offset: 0n } } })
const ended = create(ProcessEventSchema, { event: { case: 'end', value: { exitCode: 0, exited: true } } })
const says = (text: string, at: number) =>
  create(ProcessEventSchema, {
    event: { case: 'data', value: { output: { case: 'stdout', value: Buffer.from(text) }, offset: BigInt(at) } },
  })
const refused = (code: ErrorCode) => new ConnectError(code, Code.Unknown, { [ERROR_CODE_HEADER]: code })
const brokenLine = new ConnectError('stream closed', Code.Unavailable)

interface HostScript {
  /** One per call of the host, in their order; the stream of each ends with its error. */
  readonly answers: readonly Script[]
  /** Output of process 7 after a rollback; absent: there is none. */
  readonly outputOffset?: number
  readonly rolledBack?: boolean
}

/** A session against a host that answers as told. */
function setUp({ answers, outputOffset, rolledBack = false }: HostScript) {
  const calls: Call[] = []
  const script = [...answers]
  async function* answer() {
    for (const step of script.shift() ?? []) {
      if (step instanceof Error) throw step
      yield { event: step }
    }
  }
  const client: Partial<HostClient> = {
    startProcess: () => {
      calls.push(['start'])
      return answer() as ReturnType<HostClient['startProcess']> // a stream of the same messages
    },
    connectProcess: ({ connect }) => {
      calls.push(['connect', connect?.fromOffset === undefined ? undefined : Number(connect.fromOffset)])
      return answer() as ReturnType<HostClient['connectProcess']>
    },
    listProcesses: async () =>
      ({
        processes: outputOffset === undefined ? [] : [{ pid: 7, tag: 'mine', outputOffset: BigInt(outputOffset) }],
      }) as Awaited<ReturnType<HostClient['listProcesses']>>,
  }
  const context = {
    client: client as HostClient, // these are the calls a session makes
    wake: {
      afterRefusal: async () => ({ row: undefined, slept: true }) as never, // a session does not look at the row
      rolledBackSince: async () => (rolledBack ? 2 : undefined),
      attempt: async (_capsule, call) => await call(),
    },
    capsule: CAPSULE,
    generation: 1,
    signal: new AbortController().signal,
  } satisfies SessionContext
  return { context, calls }
}

const command = (isNewTag: boolean) =>
  ({
    cmd: 'true',
    args: [],
    envs: {},
    cwd: undefined,
    user: undefined,
    tag: 'mine',
    isNewTag,
    stdin: false,
    timeoutMs: 0,
    foreground: true,
  }) as const

async function read(events: AsyncGenerator<SessionEvent>): Promise<string[]> {
  const seen: string[] = []
  for await (const event of events) {
    seen.push(event.case === 'data' ? Buffer.from(event.value.output.value ?? []).toString() : (event.case ?? ''))
  }
  return seen
}

describe('a session', () => {
  it('is taken up at its offset after a pause, once per byte', async () => {
    const { context, calls } = setUp({
      answers: [
        [started, says('abc', 0), refused('invalid_state')],
        [started, says('de', 3), refused('invalid_state')],
        [started, ended],
      ],
    })
    expect(await read(startSession(context, command(true)))).toEqual(['start', 'abc', 'de', 'end'])
    expect(calls).toEqual([['start'], ['connect', 3], ['connect', 5]])
  })

  it('that follows from now on comes back to where that was', async () => {
    const from = create(ProcessEventSchema, { event: { case: 'start', value: { pid: 7, tag: 'mine', offset: 40n } } })
    const { context, calls } = setUp({
      answers: [
        [from, refused('invalid_state')],
        [from, says('x', 40), ended],
      ],
    })
    expect(await read(connectSession(context, selectTag('mine'), undefined))).toEqual(['start', 'x', 'end'])
    expect(calls).toEqual([
      ['connect', undefined],
      ['connect', 40],
    ])
  })

  it('whose start got lost looks for its process before it starts another', async () => {
    const found = setUp({ answers: [[brokenLine], [started, ended]] })
    expect(await read(startSession(found.context, command(true)))).toEqual(['start', 'end'])
    expect(found.calls).toEqual([['start'], ['connect', 0]])
    const absent = setUp({ answers: [[refused('invalid_state')], [refused('process_not_found')], [started, ended]] })
    expect(await read(startSession(absent.context, command(true)))).toEqual(['start', 'end'])
    expect(absent.calls).toEqual([['start'], ['connect', 0], ['start']])
  })

  it('never takes an earlier process of the same name for its own', async () => {
    const { context, calls } = setUp({ answers: [[brokenLine], [refused('conflict')], [started, ended]] })
    expect(await read(startSession(context, command(false)))).toEqual(['start', 'end'])
    expect(calls).toEqual([['start'], ['start'], ['connect', 0]])
  })

  it('tells a conflict of its first attempt', async () => {
    const { context } = setUp({ answers: [[refused('conflict')]] })
    await expect(read(startSession(context, command(false)))).rejects.toMatchObject({ code: 'conflict' })
  })

  it('ends with `rolled_back` when its process does not exist any more', async () => {
    for (const code of ['rolled_back', 'invalid_state', 'guest_error', 'process_not_found'] as const) {
      const { context } = setUp({ answers: [[started, says('abc', 0), refused(code)]], rolledBack: true })
      await expect(read(startSession(context, command(true)))).rejects.toMatchObject({ code: 'rolled_back' })
    }
  })

  it('goes on from what its process had written at the moment it was put back to', async () => {
    const { context, calls } = setUp({
      answers: [
        [started, says('abcdef', 0), refused('rolled_back')],
        [started, says('DEF', 3), ended],
      ],
      rolledBack: true,
      outputOffset: 3,
    })
    expect(await read(startSession(context, command(true)))).toEqual(['start', 'abcdef', 'DEF', 'end'])
    expect(calls).toEqual([['start'], ['connect', 3]])
  })

  it('ends with what ended the capsule', async () => {
    const { context } = setUp({ answers: [[started, refused('guest_died')]] })
    await expect(read(startSession(context, command(true)))).rejects.toMatchObject({ code: 'guest_died' })
    const asleep = setUp({ answers: [[started, refused('invalid_state')]] })
    const gone = async () => {
      throw new AppError('invalid_state', 'The capsule is stopping, not running.')
    }
    const context2 = { ...asleep.context, wake: { ...asleep.context.wake, afterRefusal: gone } }
    await expect(read(startSession(context2, command(true)))).rejects.toThrow('stopping')
  })
})
