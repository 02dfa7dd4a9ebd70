import { on } from 'node:events'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import { AppError, capsuleIds } from '@wrenn/base'
import type {
  HostService,
  ImportImageRequest,
  WatchCapsulesResponseSchema,
  WriteFileRequest,
} from '@wrenn/protocol/host'
import { readArchive, writeArchive } from './fake-archive.js'
import type { FakeCapsule } from './fake-capsule.js'
import { fetchImage, importImage } from './fake-images.js'
import { enter, knownCapsule } from './fake-lifecycle.js'
import { createLifecycleMethods } from './fake-lifecycle-service.js'
import type { FakeProcess } from './fake-process.js'
import { stream, toConnectError, unary } from './fake-rpc.js'
import type { FakeChange, FakeHostState, FakeSnapshot } from './fake-state.js'

const GIB = 2n ** 30n
const KEEPALIVE_MS = 200

/** The service over a `FakeHostState`; errors carry their code as the real host agent's do. */
export function createFakeService(host: FakeHostState): ServiceImpl<typeof HostService> {
  const known = (id: string): FakeCapsule => knownCapsule(host, id)
  const usable = (id: string): FakeCapsule => {
    const capsule = known(id).usable()
    if (!host.unreachable.has(id)) return capsule
    throw new AppError('guest_unreachable', 'The guest cannot be reached: it gave no sign for 30 s.')
  }

  return {
    getHost: unary(async () => ({
      hostId: host.hostId,
      agentVersion: '0.1.0',
      engine: 'fake',
      engineVersion: '1',
      engineReason: 'asked for',
      cpus: 2,
      memoryBytes: 8n * GIB,
      memoryAvailableBytes: host.memoryAvailableBytes,
      poolBytes: 64n * GIB,
      poolFreeBytes: host.poolFreeBytes,
      runningCapsules: [...host.capsules.values()].filter(({ state }) => state === 'running').length,
      ready: host.notReadyReason === '',
      notReadyReason: host.notReadyReason,
    })),
    listTemplates: unary(async () => ({
      templates: host.templates.map(({ name, aliases }) => ({
        name,
        aliases: [...aliases],
        sizeBytes: 1000n,
        createdAtMs: 1_700_000_000_000n,
        defaultVcpus: 1,
        defaultMemoryMib: 512,
      })),
    })),
    fetchImage: stream((request) => fetchImage(host, request)),
    importImage: stream((requests: AsyncIterable<ImportImageRequest>) => importImage(host, requests)),
    createCapsule: unary(async (request) => ({
      capsule: await host.locks.run(request.capsuleId, async () => (await create(host, request)).message()),
    })),
    destroyCapsule: unary(async ({ capsuleId }) => {
      const existed = await host.locks.run(capsuleId, async () => {
        await host.faults.pass('destroy', 'before')
        return await host.remove(capsuleId)
      })
      await host.faults.pass('destroy', 'after')
      return { existed }
    }),
    getCapsule: unary(async ({ capsuleId }) => ({ capsule: known(capsuleId).message() })),
    listCapsules: unary(async () => ({ capsules: [...host.capsules.values()].map((capsule) => capsule.message()) })),
    watchCapsules: stream((_request, context) => watch(host, context.signal)),
    ...createLifecycleMethods(host),
    getMetrics: unary(async ({ capsuleId }) => {
      usable(capsuleId)
      return {
        timestampMs: BigInt(Date.now()),
        cpuPct: 1.5,
        cpuCount: 1,
        memUsedBytes: 50n * 2n ** 20n,
        memTotalBytes: 512n * 2n ** 20n,
        memCacheBytes: 1n,
        diskUsedBytes: 2n ** 20n,
        diskTotalBytes: GIB,
        hostRssBytes: 2n ** 20n,
        hostCpuNs: 1n,
        hostDiskBytes: 4096n,
      }
    }),
    collectMetrics: unary(async ({ fromSec, capsuleIds }) => {
      const untilSec = BigInt(host.usedUntilSec)
      const isWanted = (atSec: bigint) => atSec >= fromSec && (capsuleIds.length > 0 || atSec < untilSec)
      const ids = capsuleIds.length > 0 ? capsuleIds : [...host.used.keys()]
      const series = ids.map((capsuleId) => ({
        capsuleId,
        points: (host.used.get(capsuleId) ?? []).filter(({ atSec }) => isWanted(atSec)),
      }))
      return { untilSec, series: series.filter(({ points }) => points.length > 0) }
    }),
    collectTraffic: unary(async ({ notedGuests }) => {
      for (const guestId of notedGuests) if (host.traffic.get(guestId)?.ended === true) host.traffic.delete(guestId)
      return { guests: [...host.traffic.values()] }
    }),
    startProcess: stream(async function* (request, context) {
      const capsule = usable(request.capsuleId)
      yield* follow(capsule, await capsule.start(request), 0, context)
    }),
    connectProcess: stream(async function* ({ capsuleId, connect }, context) {
      const capsule = usable(capsuleId)
      const from = connect?.fromOffset === undefined ? undefined : Number(connect.fromOffset)
      yield* follow(capsule, capsule.find(connect?.process), from, context)
    }),
    listProcesses: unary(async ({ capsuleId, includeEnded }) => ({
      processes: usable(capsuleId)
        .processes.filter((process) => includeEnded || process.running)
        .map(describe),
    })),
    sendInput: unary(async ({ capsuleId, input }) => {
      const bytes = input?.input?.input.value
      if (bytes !== undefined) usable(capsuleId).find(input?.process).write(bytes)
      return {}
    }),
    closeStdin: unary(async ({ capsuleId, process }) => {
      usable(capsuleId).find(process).closeStdin()
      return {}
    }),
    signalProcess: unary(async ({ capsuleId, signal }) => {
      usable(capsuleId)
        .find(signal?.process)
        .signal(signal?.signal ?? 9)
      return {}
    }),
    resizePty: unary(async ({ capsuleId, process, cols, rows }) => {
      usable(capsuleId).find(process).resize(cols, rows)
      return {}
    }),
    readFile: stream(async function* ({ capsuleId, path, offset, length, headers, statOnly }) {
      const { files, use } = usable(capsuleId)
      const wish = { offset, ...(length === undefined ? {} : { length }), range: headers.range, statOnly }
      for await (const part of files.read(path, wish)) {
        use.throwIfAborted()
        yield part
      }
    }),
    writeFile: async (requests) => {
      try {
        return await write(requests, usable)
      } catch (error) {
        throw toConnectError(error)
      }
    },
    readArchive: stream(({ capsuleId, path }) => readArchive(usable(capsuleId), path)),
    writeArchive: unary(async (requests) => await writeArchive(requests, usable)),
    statFile: unary(async ({ capsuleId, path }) => ({ entry: await usable(capsuleId).files.stat(path) })),
    listDir: unary(async ({ capsuleId, path, depth }) => ({
      entries: await usable(capsuleId).files.list(path, depth),
    })),
    makeDir: unary(async ({ capsuleId, path }) => ({ entry: await usable(capsuleId).files.makeDir(path) })),
    moveFile: unary(async ({ capsuleId, source, destination }) => ({
      entry: await usable(capsuleId).files.move(source, destination),
    })),
    removeFile: unary(async ({ capsuleId, path }) => {
      await usable(capsuleId).files.remove(path)
      return {}
    }),
  }
}

type CreateRequest = Parameters<ServiceImpl<typeof HostService>['createCapsule']>[0]

async function create(host: FakeHostState, request: CreateRequest): Promise<FakeCapsule> {
  const { capsuleId } = request
  if (!capsuleIds.is(capsuleId)) throw new AppError('invalid_request', 'That is not a capsule id.')
  const snapshot = request.snapshotId === '' ? undefined : snapshotFor(host, request)
  if (snapshot === undefined) needTemplate(host, request.template)
  if (request.verified && (await snapshot?.capture.isIntact()) === false) {
    const text = `The saved state snapshots/${request.snapshotId} is damaged: its content is not what was saved.`
    throw new AppError('snapshot_damaged', text)
  }
  const existing = host.capsules.get(capsuleId)
  if (existing?.state === 'running' || existing?.state === 'paused') return existing
  if (existing?.state === 'error' && existing.exit !== undefined) {
    throw new AppError('guest_died', `The capsule was made and has ended since: ${existing.exit.message}`)
  }
  if (existing !== undefined) throw new AppError('conflict', `The capsule exists already and is ${existing.state}.`)
  host.creates++
  const capsule = await host.addCapsule(capsuleId)
  capsule.request = request
  host.announce(capsule)
  try {
    await host.passGate()
    await host.faults.pass('create', 'before')
    knownCapsule(host, capsuleId)
    await snapshot?.capture.restoreInto(capsule)
  } catch (error) {
    await host.remove(capsuleId)
    throw error
  }
  if (snapshot !== undefined) Object.assign(capsule, { snapshotId: request.snapshotId, path: 'restore' })
  enter(host, capsule)
  await host.faults.pass('create', 'after')
  return capsule
}

function needTemplate(host: FakeHostState, wanted: string): void {
  if (host.fetched.has(wanted)) return
  const isNamed = host.templates.some(({ name, aliases }) => [name, ...aliases].some((known) => known === wanted))
  if (!isNamed) throw new AppError('template_not_found', `There is no template ${wanted}.`)
}

function snapshotFor(host: FakeHostState, request: CreateRequest): FakeSnapshot {
  const snapshot = host.snapshots.get(request.snapshotId)
  if (snapshot === undefined) throw new AppError('template_not_found', `There is no snapshot ${request.snapshotId}.`)
  const { vcpus, memoryMib, diskSizeMib } = snapshot.record
  if (vcpus !== request.vcpus || memoryMib !== request.memoryMib || diskSizeMib !== request.diskSizeMib) {
    throw new AppError('invalid_request', "vcpus, memory_mib and disk_size_mib must be the snapshot's.")
  }
  return snapshot
}

async function* watch(
  host: FakeHostState,
  signal: AbortSignal,
): AsyncGenerator<MessageInitShape<typeof WatchCapsulesResponseSchema>> {
  const changes = on(host.changes, 'change', { signal })
  const keepalive = setInterval(() => host.changes.emit('change', 'keepalive'), KEEPALIVE_MS)
  for (const capsule of host.capsules.values()) yield { event: { case: 'capsule', value: capsule.message() } }
  yield { event: { case: 'synced', value: {} } }
  try {
    for await (const [change] of changes as AsyncIterable<[FakeChange]>) {
      if (change === 'keepalive') yield { event: { case: 'keepalive', value: {} } }
      else if ('capsule' in change) yield { event: { case: 'capsule', value: change.capsule } }
      else yield { event: { case: 'removed', value: change.removed } }
    }
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    clearInterval(keepalive)
  }
}

async function* follow(capsule: FakeCapsule, process: FakeProcess, from: number | undefined, context: HandlerContext) {
  const { use } = capsule
  capsule.streams++
  try {
    for await (const event of process.follow(from, AbortSignal.any([context.signal, use]))) {
      if (event.case === 'end' && capsule.exit !== undefined) throw new AppError('guest_died', capsule.exit.message)
      yield { event: { event } }
    }
    if (!context.signal.aborted) use.throwIfAborted()
  } finally {
    capsule.streams--
    capsule.lastActiveAtMs = Date.now()
  }
}

function describe(process: FakeProcess) {
  const { cmd, args, cwd, tag, pty } = process.options
  return {
    config: { cmd, args: [...args], cwd },
    pid: process.pid,
    ...(tag === undefined ? {} : { tag }),
    running: process.running,
    pty: pty !== undefined,
    foreground: process.options.foreground,
    outputOffset: BigInt(process.outputOffset),
    startedAtMs: BigInt(process.startedAtMs),
  }
}

async function write(requests: AsyncIterable<WriteFileRequest>, usable: (id: string) => FakeCapsule) {
  const parts = requests[Symbol.asyncIterator]()
  const first = await parts.next()
  const open = first.done === true ? undefined : first.value.part
  if (open?.case !== 'open') throw new AppError('invalid_request', 'The first message must be `open`.')
  const { files, use } = usable(open.value.capsuleId)
  async function* chunks() {
    for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
      use.throwIfAborted()
      if (next.value.part.case === 'complete') return
      if (next.value.part.case === 'chunk') yield next.value.part.value
    }
    throw new AppError('invalid_request', 'The upload ended before the file was complete.')
  }
  const { path, mode, headers } = open.value
  const bytes = await files.write(path, chunks(), { mode, headers })
  return { bytes: BigInt(bytes) }
}
