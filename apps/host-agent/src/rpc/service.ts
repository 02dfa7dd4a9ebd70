import { Readable } from 'node:stream'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import { AppError } from '@wrenn/base'
import type {
  CollectMetricsResponseSchema,
  HostService,
  ReadFileRequest,
  ReadFileResponseSchema,
  WatchCapsulesResponseSchema,
  WriteFileRequest,
} from '@wrenn/protocol/host'
import {
  asUser,
  connectProcess,
  type FileWish,
  type GuestClient,
  type GuestFile,
  startProcess,
} from '../capsule/guest/index.js'
import type { CapsuleEvent, CapsuleManager } from '../capsule/manager.js'
import type { CapsuleTraffic, UsagePoint, UsageSampler } from '../capsule/usage/index.js'
import { archiveHandlers } from './archive.js'
import { parseCapsuleId, parseCreate, toCapsule } from './convert.js'
import { EventQueue } from './event-queue.js'
import { createWrappers, type ServiceDeps } from './handlers.js'
import { imageHandlers } from './images.js'
import { lifecycleHandlers } from './lifecycle.js'

const KEEPALIVE_MS = 15_000
const FILE_CHUNK_BYTES = 256 * 1024
/** What an answer may take on its way back. */
const ANSWER_MS = 1_000

/** Implements the host's RPC service over the domain. Every error leaves with its Wrenn code. */
export function createHostService(deps: ServiceDeps): ServiceImpl<typeof HostService> {
  const { parts } = deps
  const { unary, stream } = createWrappers(deps.logger)
  const guestOf = async (capsuleId: string, dueAtMs?: number): Promise<GuestClient> =>
    (await parts().manager.running(parseCapsuleId(capsuleId), { dueAtMs })).client
  const follow = (capsuleId: string, context: HandlerContext, dueAtMs?: number) => {
    const { manager } = parts()
    const rollbacks = manager.rollbacks(capsuleId)
    // A process of the same number may have written less at the checkpoint, so its offset no longer fits.
    const putBack = () =>
      manager.rollbacks(capsuleId) === rollbacks
        ? undefined
        : new AppError('rolled_back', 'The capsule was rolled back to a checkpoint or started from its disk.')
    return {
      signal: context.signal,
      gone: () => manager.whyGone(capsuleId) ?? putBack(),
      line: () => guestOf(capsuleId, dueAtMs),
      dueAtMs,
    }
  }
  /** Passes a stream on; while it is open its capsule is in use. */
  async function* counted<T>(capsuleId: string, items: AsyncIterable<T>): AsyncGenerator<T> {
    const close = parts().manager.activity.open(capsuleId)
    try {
      yield* items
    } catch (error) {
      throw await parts().manager.explain(capsuleId, error)
    } finally {
      close()
    }
  }
  /** A guest that died while it was asked says so itself, whatever the broken connection looked like. */
  const longCall = async <T>(capsuleId: string, ask: (client: GuestClient) => Promise<T>): Promise<T> => {
    const client = await guestOf(capsuleId)
    try {
      return await ask(client)
    } catch (error) {
      throw await parts().manager.explain(capsuleId, error)
    }
  }
  /** A pause waits for these to be answered; one that was cut all the same may have been carried out, so it says no other. */
  const guestCall = async <T>(capsuleId: string, ask: (client: GuestClient) => Promise<T>): Promise<T> => {
    let asked = false
    const call = async (): Promise<T> =>
      await longCall(capsuleId, async (client) => {
        asked = true
        return await ask(client)
      })
    try {
      return await parts().manager.calls.run(capsuleId, call)
    } catch (error) {
      if (!asked || !AppError.is(error, 'invalid_state')) throw error
      throw new AppError('guest_error', 'The capsule was paused before its guest had answered.', { cause: error })
    }
  }

  return {
    getHost: unary(async () => await deps.status.read()),
    listTemplates: unary(async () => ({
      templates: (await parts().images.offered()).map(({ aliases, sizeBytes, createdAtMs, ...template }) => ({
        ...template,
        aliases: [...aliases],
        sizeBytes: BigInt(sizeBytes),
        createdAtMs: BigInt(Math.round(createdAtMs)),
      })),
    })),

    ...imageHandlers(parts, { unary, stream }),

    createCapsule: unary(async (request) => ({
      capsule: toCapsule(await parts().manager.create(parseCreate(request))),
    })),
    destroyCapsule: unary(async (request) => ({
      existed: await parts().manager.destroy(parseCapsuleId(request.capsuleId)),
    })),
    getCapsule: unary(async (request) => {
      const record = parts().manager.get(parseCapsuleId(request.capsuleId))
      if (record === undefined) throw new AppError('capsule_not_found', 'The capsule is not on this host.')
      return { capsule: toCapsule(record) }
    }),
    listCapsules: unary(async () => ({ capsules: parts().manager.list().map(toCapsule) })),
    ...lifecycleHandlers(deps, { unary, stream }),
    watchCapsules: stream((_request, context) => watchCapsules(parts().manager, context.signal)),
    getMetrics: unary(async (request, context) => {
      const capsuleId = parseCapsuleId(request.capsuleId)
      const silenceMs = beforeDeadline(context)
      return await parts().metrics.read(await parts().manager.running(capsuleId, { silenceMs }), silenceMs)
    }),
    collectMetrics: unary(async ({ fromSec, capsuleIds }) => collectMetrics(parts().usage, fromSec, capsuleIds)),
    collectTraffic: unary(async ({ notedGuests }) => {
      const guests = await parts().traffic.collect(notedGuests)
      return { guests: guests.map(toTraffic) }
    }),

    startProcess: stream(async function* (request, context) {
      if (request.start?.process === undefined) throw new AppError('invalid_request', 'start.process is required.')
      const { $typeName: _, ...start } = request.start
      const dueAtMs = dueAt(start.timeoutMs)
      const client = await guestOf(request.capsuleId, dueAtMs)
      const events = startProcess(client, start, request.user, follow(request.capsuleId, context, dueAtMs))
      for await (const event of counted(request.capsuleId, events)) yield { event }
    }),
    connectProcess: stream(async function* (request, context) {
      const selector = request.connect?.process?.selector
      if (selector?.case === undefined) throw new AppError('invalid_request', 'connect.process needs a pid or a tag.')
      const chosen = selector.case === 'pid' ? { pid: selector.value } : { tag: selector.value }
      const client = await guestOf(request.capsuleId)
      const events = connectProcess(client, chosen, request.connect?.fromOffset, follow(request.capsuleId, context))
      for await (const event of counted(request.capsuleId, events)) yield { event }
    }),
    listProcesses: unary(async (request) => {
      const { includeEnded } = request
      const answer = await guestCall(request.capsuleId, (client) => client.lists.process.list({ includeEnded }))
      return { processes: answer.processes }
    }),
    sendInput: unary(async ({ capsuleId, input }) => {
      if (input === undefined) throw new AppError('invalid_request', 'input is required.')
      await guestCall(capsuleId, (client) => client.process.sendInput(input))
      return {}
    }),
    closeStdin: unary(async ({ capsuleId, process }) => {
      if (process === undefined) throw new AppError('invalid_request', 'process is required.')
      await guestCall(capsuleId, (client) => client.process.closeStdin({ process }))
      return {}
    }),
    signalProcess: unary(async ({ capsuleId, signal }) => {
      if (signal === undefined) throw new AppError('invalid_request', 'signal is required.')
      await guestCall(capsuleId, (client) => client.process.sendSignal(signal))
      return {}
    }),
    resizePty: unary(async ({ capsuleId, process, cols, rows }) => {
      if (process === undefined) throw new AppError('invalid_request', 'process is required.')
      await guestCall(capsuleId, (client) => client.process.update({ process, pty: { size: { cols, rows } } }))
      return {}
    }),

    readFile: stream(async function* (request, context) {
      const { path, user } = request
      const wish = wishOf(request)
      const file = await guestCall(request.capsuleId, (client) => client.readFile(path, user, wish, context.signal))
      yield* counted(request.capsuleId, fileParts(file))
    }),
    writeFile: unary(async (requests, context) => await writeFile(requests, context.signal, longCall, parts().manager)),
    statFile: unary(async ({ capsuleId, path, user }) => {
      const answer = await guestCall(capsuleId, (client) => client.filesystem.stat({ path }, { headers: asUser(user) }))
      return answer.entry === undefined ? {} : { entry: answer.entry }
    }),
    listDir: unary(async ({ capsuleId, path, depth, user }) => {
      const answer = await guestCall(capsuleId, (client) =>
        client.lists.filesystem.listDir({ path, depth }, { headers: asUser(user) }),
      )
      return { entries: answer.entries }
    }),
    makeDir: unary(async ({ capsuleId, path, user }) => {
      const answer = await guestCall(capsuleId, (client) =>
        client.filesystem.makeDir({ path }, { headers: asUser(user) }),
      )
      return answer.entry === undefined ? {} : { entry: answer.entry }
    }),
    moveFile: unary(async ({ capsuleId, source, destination, user }) => {
      const answer = await guestCall(capsuleId, (client) =>
        client.filesystem.move({ source, destination }, { headers: asUser(user) }),
      )
      return answer.entry === undefined ? {} : { entry: answer.entry }
    }),
    ...archiveHandlers(parts, { unary, stream }),
    removeFile: unary(async ({ capsuleId, path, user }) => {
      await guestCall(capsuleId, (client) => client.filesystem.remove({ path }, { headers: asUser(user) }))
      return {}
    }),
  }
}

/** When a process with this timeout ends by it, at the earliest; 0 is none. */
function dueAt(timeoutMs: number): number | undefined {
  return timeoutMs === 0 ? undefined : performance.now() + timeoutMs
}

/** So long a guest may be silent that its caller still hears why. */
function beforeDeadline(context: HandlerContext): number | undefined {
  const leftMs = context.timeoutMs()
  return leftMs === undefined ? undefined : Math.max(leftMs - ANSWER_MS, 0)
}

function collectMetrics(
  usage: UsageSampler,
  fromSec: bigint,
  capsuleIds: readonly string[],
): MessageInitShape<typeof CollectMetricsResponseSchema> {
  const found = usage.points(Number(fromSec), capsuleIds.map(parseCapsuleId))
  const series = [...found].map(([capsuleId, points]) => ({ capsuleId, points: points.map(toPoint) }))
  return { series, untilSec: BigInt(usage.untilSec) }
}

function toPoint({ atSec, cpuPct, memBytes, diskBytes, netRxBytes, netTxBytes }: UsagePoint) {
  return {
    ...{ atSec: BigInt(atSec), cpuPct, memBytes: BigInt(memBytes), diskBytes: BigInt(diskBytes) },
    ...(netRxBytes === undefined ? {} : { netRxBytes: BigInt(netRxBytes) }),
    ...(netTxBytes === undefined ? {} : { netTxBytes: BigInt(netTxBytes) }),
  }
}

function toTraffic({ rxBytes, txBytes, ...guest }: CapsuleTraffic) {
  return { ...guest, rxBytes: BigInt(rxBytes), txBytes: BigInt(txBytes) }
}

function optionalNumber(value: bigint | undefined): number | undefined {
  return value === undefined ? undefined : Number(value)
}

async function* watchCapsules(
  manager: CapsuleManager,
  signal: AbortSignal,
): AsyncGenerator<MessageInitShape<typeof WatchCapsulesResponseSchema>> {
  const queue = new EventQueue<CapsuleEvent>()
  const stop = manager.watch((event) => queue.push(event))
  try {
    for (const record of manager.list()) yield { event: { case: 'capsule', value: toCapsule(record) } }
    yield { event: { case: 'synced', value: {} } }
    while (!signal.aborted) {
      const event = await queue.next(KEEPALIVE_MS, signal)
      if (event === undefined) yield { event: { case: 'keepalive', value: {} } }
      else if ('removed' in event) yield { event: { case: 'removed', value: event.removed } }
      else yield { event: { case: 'capsule', value: toCapsule(event.record) } }
    }
  } finally {
    stop()
  }
}

function wishOf({ offset, length, headers, statOnly }: ReadFileRequest): FileWish {
  if (statOnly || Object.keys(headers).length > 0) return { headers, statOnly }
  return { offset: Number(offset), length: optionalNumber(length) }
}

async function* fileParts(file: GuestFile): AsyncGenerator<MessageInitShape<typeof ReadFileResponseSchema>> {
  try {
    const { status, headers, unsized } = file
    const value = { size: BigInt(file.size), length: BigInt(file.length), unsized, status, headers: { ...headers } }
    yield { part: { case: 'stat', value } }
    for await (const chunk of file.chunks) yield { part: { case: 'chunk', value: chunk } }
  } finally {
    file.close()
  }
}

async function writeFile(
  requests: AsyncIterable<WriteFileRequest>,
  signal: AbortSignal,
  guestCall: <T>(capsuleId: string, ask: (client: GuestClient) => Promise<T>) => Promise<T>,
  manager: CapsuleManager,
): Promise<{ bytes: bigint }> {
  const parts = requests[Symbol.asyncIterator]()
  const first = await parts.next()
  if (first.done || first.value.part.case !== 'open') {
    throw new AppError('invalid_request', 'The first message of WriteFile must be `open`.')
  }
  const { capsuleId, path, user, mode, headers } = first.value.part.value
  let bytes = 0n
  const body = Readable.from(
    (async function* () {
      for (let next = await parts.next(); !next.done; next = await parts.next()) {
        const { part } = next.value
        if (part.case === 'complete') return
        if (part.case !== 'chunk') throw new AppError('invalid_request', 'Only chunks may follow `open`.')
        bytes += BigInt(part.value.length)
        yield part.value
      }
      throw new AppError('invalid_request', 'The upload ended before the file was complete.')
    })(),
    { objectMode: false, highWaterMark: FILE_CHUNK_BYTES },
  )
  const close = manager.activity.open(capsuleId)
  try {
    await guestCall(capsuleId, (client) => client.writeFile(path, user, body, { mode, headers }, signal))
  } finally {
    close()
  }
  return { bytes }
}
