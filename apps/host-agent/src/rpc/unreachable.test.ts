import { randomBytes } from 'node:crypto'
import { createClient, createRouterTransport } from '@connectrpc/connect'
import { AppError, capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { ERROR_CODE_HEADER } from '@wrenn/protocol'
import { Signal } from '@wrenn/protocol/guest'
import { HostService } from '@wrenn/protocol/host'
import type { FakeGuest } from '@wrenn/testkit'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { patienceOf } from '../capsule/guest/pulse.js'
import type { CapsuleManager } from '../capsule/manager.js'
import { serviceOf } from '../testing/service-of.js'
import { type Silence, silences } from '../testing/silences.js'
import { TestMachine } from '../testing/test-machine.js'

const SILENCE_MS = 800
/** Longer than any test: what ends, ends by the silence of the guest. */
const LONG_MS = 600_000

/** A host's service over a machine without processes, as its callers see it. */
function clientOf(machine: TestMachine, manager: CapsuleManager) {
  const service = serviceOf(machine, manager)
  return createClient(
    HostService,
    createRouterTransport((router) => router.service(HostService, service)),
  )
}
type HostClient = ReturnType<typeof clientOf>

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream) {
    // only its end matters
  }
}

const command = { process: { cmd: '/bin/sh', args: ['-c', 'exec sleep 1000'] }, stdin: false }
const process = { selector: { case: 'tag', value: 'some' } } as const
const input = { process, input: { input: { case: 'stdin', value: Buffer.from('x') } } } as const
async function* upload(capsuleId: string) {
  yield { part: { case: 'open', value: { capsuleId, path: '/tmp/file', user: '' } } } as const
  yield { part: { case: 'chunk', value: randomBytes(100_000) } } as const
  yield { part: { case: 'complete', value: true } } as const
}

/** Every call that a guest answers. */
const calls: Readonly<Record<string, (host: HostClient, capsuleId: string) => Promise<unknown>>> = {
  'a command with a timeout': (host, capsuleId) =>
    drain(host.startProcess({ capsuleId, start: { ...command, timeoutMs: 100, foreground: true } })),
  'a command with a timeout far away': (host, capsuleId) =>
    drain(host.startProcess({ capsuleId, start: { ...command, timeoutMs: LONG_MS, foreground: true } })),
  'a command without a timeout': (host, capsuleId) => drain(host.startProcess({ capsuleId, start: command })),
  'a terminal': (host, capsuleId) =>
    drain(host.startProcess({ capsuleId, start: { ...command, pty: { size: { cols: 80, rows: 24 } } } })),
  'a session': (host, capsuleId) => drain(host.connectProcess({ capsuleId, connect: { process } })),
  'a session from an offset': (host, capsuleId) =>
    drain(host.connectProcess({ capsuleId, connect: { process, fromOffset: 0n } })),
  'the list of processes': (host, capsuleId) => host.listProcesses({ capsuleId }),
  input: (host, capsuleId) => host.sendInput({ capsuleId, input }),
  'the end of input': (host, capsuleId) => host.closeStdin({ capsuleId, process }),
  'a signal': (host, capsuleId) => host.signalProcess({ capsuleId, signal: { process, signal: Signal.SIGKILL } }),
  'a new size': (host, capsuleId) => host.resizePty({ capsuleId, process, cols: 1, rows: 1 }),
  'a download': (host, capsuleId) => drain(host.readFile({ capsuleId, path: '/etc/passwd' })),
  'a part of a file': (host, capsuleId) =>
    drain(host.readFile({ capsuleId, path: '/etc/passwd', offset: 1n, length: 1n })),
  'an upload': (host, capsuleId) => host.writeFile(upload(capsuleId)),
  stat: (host, capsuleId) => host.statFile({ capsuleId, path: '/' }),
  'the list of a directory': (host, capsuleId) => host.listDir({ capsuleId, path: '/', depth: 1 }),
  'a new directory': (host, capsuleId) => host.makeDir({ capsuleId, path: '/tmp/x' }),
  'a move': (host, capsuleId) => host.moveFile({ capsuleId, source: '/a', destination: '/b' }),
  'a removal': (host, capsuleId) => host.removeFile({ capsuleId, path: '/a' }),
  metrics: (host, capsuleId) => host.getMetrics({ capsuleId }),
  'metrics for one who waits less long': (host, capsuleId) => host.getMetrics({ capsuleId }, { timeoutMs: 1_500 }),
  'a fork, whose copies could not be told who they are': (host, capsuleId) =>
    host.forkCapsule({ capsuleId, copies: [{ capsuleId: capsuleIds.create(), hostname: 'copy', generation: 1n }] }),
  'a snapshot, whose capsules could not be told who they are': (host, capsuleId) =>
    host.createSnapshot({ capsuleId, snapshotId: snapshotIds.create() }),
}

/** How a call ends: its Wrenn code. */
async function endOf(call: Promise<unknown>): Promise<string> {
  return await call.then(
    () => 'ok',
    (error) => error.metadata?.get(ERROR_CODE_HEADER) ?? String(error),
  )
}

let machine: TestMachine
let manager: CapsuleManager
let host: HostClient
let capsuleId: string
let silence: AsyncDisposable | undefined

const guestOf = (): FakeGuest => {
  const { vmId } = manager.get(capsuleId)?.resources ?? {}
  const agent = machine.agents.get(vmId ?? '')
  if (agent === undefined) throw new Error('The capsule has no guest.')
  return agent
}
const fallSilent = async (how: Silence): Promise<void> => {
  silence = await silences[how](guestOf(), manager.get(capsuleId)?.resources?.guestAddress ?? '')
}

beforeEach(async () => {
  machine = await TestMachine.create()
  machine.patience = patienceOf(SILENCE_MS)
  ;({ manager, capsuleId } = await machine.startWithCapsule())
  host = clientOf(machine, manager)
})
afterEach(async () => {
  await silence?.[Symbol.asyncDispose]()
  silence = undefined
  await machine[Symbol.asyncDispose]()
})

const kinds = Object.keys(silences).filter((name): name is Silence => name in silences)

describe.each(kinds)('a guest with %s', (how) => {
  it('ends every call', async () => {
    await fallSilent(how)
    const ends = await Promise.all(
      Object.entries(calls).map(async ([name, call]) => [name, await endOf(call(host, capsuleId))] as const),
    )
    expect(ends.filter(([, end]) => end !== 'guest_unreachable')).toEqual([])
  })

  it('ends what was under way', async () => {
    const started = new Promise<void>((resolve) => {
      void (async () => {
        for await (const _ of host.startProcess({ capsuleId, start: command })) resolve()
      })().catch(() => {})
    })
    await started
    const streams = [
      host.startProcess({ capsuleId, start: { ...command, timeoutMs: 500, foreground: true } }),
      host.startProcess({ capsuleId, start: command }),
    ]
    const running = streams.map((stream) => stream[Symbol.asyncIterator]())
    await Promise.all(running.map((events) => events.next()))
    await fallSilent(how)
    const ends = await Promise.all(running.map((events) => endOf(drain({ [Symbol.asyncIterator]: () => events }))))
    expect(new Set(ends)).toEqual(new Set(['guest_unreachable']))
  })

  it('is asked what it does without holding up the others, paused, and resumed', async () => {
    await fallSilent(how)
    const activity = await host.getActivity({ capsuleIds: [capsuleId] })
    expect(activity.capsules).toMatchObject([{ capsuleId, reasons: [] }])
    expect(await host.pauseCapsule({ capsuleId, reason: 'request' })).toMatchObject({ capsule: { state: 'paused' } })
    await silence?.[Symbol.asyncDispose]()
    silence = undefined
    expect(await host.resumeCapsule({ capsuleId })).toMatchObject({ capsule: { state: 'running' } })
    expect(await endOf(drain(host.startProcess({ capsuleId, start: { process: { cmd: 'true' } } })))).toBe('ok')
  })

  it('is rescued by a rollback', async () => {
    const checkpointId = checkpointIds.create()
    await host.createCheckpoint({ capsuleId, checkpointId })
    await fallSilent(how)
    const waiting = endOf(drain(host.startProcess({ capsuleId, start: command })))
    await host.rollbackCapsule({ capsuleId, checkpointId })
    expect(await waiting).toMatch(/^(?:rolled_back|guest_unreachable)$/)
    expect(await endOf(drain(host.startProcess({ capsuleId, start: { process: { cmd: 'true' } } })))).toBe('ok')
  })

  it('is kept at a checkpoint and destroyed', async () => {
    await fallSilent(how)
    const checkpointId = checkpointIds.create()
    expect(await host.createCheckpoint({ capsuleId, checkpointId })).toMatchObject({ checkpoint: { checkpointId } })
    expect(await host.destroyCapsule({ capsuleId })).toMatchObject({ existed: true })
  })
})

describe('a guest that was resumed and cannot be reached', () => {
  it('answers nobody before it was told the time, and is told as soon as it can be', async () => {
    await host.pauseCapsule({ capsuleId, reason: 'request' })
    machine.startsMuted = true
    await host.resumeCapsule({ capsuleId })
    expect(await endOf(host.listProcesses({ capsuleId }))).toBe('guest_unreachable')
    guestOf().unmute()
    expect(await endOf(drain(host.startProcess({ capsuleId, start: { process: { cmd: 'true' } } })))).toBe('ok')
    expect(guestOf().identities.some(({ resumed }) => resumed === true)).toBe(true)
  })
})

describe('the error of a call that was given up', () => {
  it('names the knob that it was given up by', async () => {
    await fallSilent('an agent that is stopped')
    const message = (call: Promise<unknown>) => call.catch((error: unknown) => String(error))
    expect(await message(host.statFile({ capsuleId, path: '/' }))).toMatch(/cannot be reached.*WRENN_GUEST_SILENCE_SEC/)
    expect(
      await message(drain(host.startProcess({ capsuleId, start: { ...command, timeoutMs: 100, foreground: true } }))),
    ).toMatch(/cannot be reached.*timeout_sec/)
    expect(AppError.is(await manager.running(capsuleId))).toBe(false)
  })
})
