import { on } from 'node:events'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from '@connectrpc/connect'
import { AppError, capsuleIds } from '@wrenn/base'
import { ERROR_CODE_HEADER, errorKind } from '@wrenn/protocol'
import type { HostService, WatchCapsulesResponseSchema, WriteFileRequest } from '@wrenn/protocol/host'
import type { FakeCapsule } from './fake-capsule.js'
import type { FakeProcess } from './fake-process.js'
import type { FakeChange, FakeHostState } from './fake-state.js'

const GIB = 2n ** 30n
const KEEPALIVE_MS = 200

/** The service over a `FakeHostState`; errors carry their code as the real host agent's do. */
export function createFakeService(host: FakeHostState): ServiceImpl<typeof HostService> {
  const known = (id: string): FakeCapsule => {
    if (!capsuleIds.is(id)) throw new AppError('invalid_request', 'That is not a capsule id.')
    const capsule = host.capsules.get(id)
    if (capsule === undefined) throw new AppError('capsule_not_found', 'The capsule is not on this host.')
    return capsule
  }
  const usable = (id: string): FakeCapsule => known(id).usable()

  return {
    getHost: unary(async () => ({
      hostId: host.hostId,
      agentVersion: '0.1.0',
      engine: 'fake',
      engineVersion: '1',
      engineReason: 'asked for',
      cpus: 2,
      memoryBytes: 8n * GIB,
      memoryAvailableBytes: 4n * GIB,
      poolBytes: 64n * GIB,
      poolFreeBytes: 32n * GIB,
      runningCapsules: host.capsules.size,
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
    createCapsule: unary(async (request) => ({ capsule: (await create(host, request)).message() })),
    destroyCapsule: unary(async ({ capsuleId }) => ({ existed: await host.remove(capsuleId) })),
    getCapsule: unary(async ({ capsuleId }) => ({ capsule: known(capsuleId).message() })),
    listCapsules: unary(async () => ({ capsules: [...host.capsules.values()].map((capsule) => capsule.message()) })),
    watchCapsules: stream((_request, context) => watch(host, context.signal)),
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
    readFile: stream(({ capsuleId, path, offset, length }) =>
      usable(capsuleId).files.read(path, Number(offset), length === undefined ? undefined : Number(length)),
    ),
    writeFile: async (requests) => {
      try {
        return await write(requests, usable)
      } catch (error) {
        throw toConnectError(error)
      }
    },
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
  if (
    !host.templates.some(
      ({ name, aliases }) => name === request.template || aliases.some((alias) => alias === request.template),
    )
  ) {
    throw new AppError('template_not_found', `There is no template ${request.template}.`)
  }
  const existing = host.capsules.get(capsuleId)
  if (existing?.state === 'running') return existing
  if (existing !== undefined) throw new AppError('conflict', `The capsule exists already and is ${existing.state}.`)
  host.creates++
  const capsule = await host.addCapsule(capsuleId)
  capsule.request = request
  host.announce(capsule)
  await host.passGate()
  capsule.state = 'running'
  host.announce(capsule)
  return capsule
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
      else if ('capsule' in change) yield { event: { case: 'capsule', value: change.capsule.message() } }
      else yield { event: { case: 'removed', value: change.removed } }
    }
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    clearInterval(keepalive)
  }
}

async function* follow(capsule: FakeCapsule, process: FakeProcess, from: number | undefined, context: HandlerContext) {
  for await (const event of process.follow(from, context.signal)) {
    if (event.case === 'end' && capsule.exit !== undefined) throw new AppError('guest_died', capsule.exit.message)
    yield { event: { event } }
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
    outputOffset: BigInt(process.outputOffset),
    startedAtMs: BigInt(process.startedAtMs),
  }
}

async function write(requests: AsyncIterable<WriteFileRequest>, usable: (id: string) => FakeCapsule) {
  const parts = requests[Symbol.asyncIterator]()
  const first = await parts.next()
  const open = first.done === true ? undefined : first.value.part
  if (open?.case !== 'open') throw new AppError('invalid_request', 'The first message must be `open`.')
  async function* chunks() {
    for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
      if (next.value.part.case === 'chunk') yield next.value.part.value
    }
  }
  const bytes = await usable(open.value.capsuleId).files.write(open.value.path, chunks())
  return { bytes: BigInt(bytes) }
}

function unary<Request, Response>(handle: (request: Request, context: HandlerContext) => Promise<Response>) {
  return async (request: Request, context: HandlerContext): Promise<Response> => {
    try {
      return await handle(request, context)
    } catch (error) {
      throw toConnectError(error)
    }
  }
}

function stream<Request, Response>(handle: (request: Request, context: HandlerContext) => AsyncGenerator<Response>) {
  return async function* (request: Request, context: HandlerContext): AsyncGenerator<Response> {
    try {
      yield* handle(request, context)
    } catch (error) {
      throw toConnectError(error)
    }
  }
}

const codes: Readonly<Record<string, Code>> = {
  invalid_argument: Code.InvalidArgument,
  failed_precondition: Code.FailedPrecondition,
  permission_denied: Code.PermissionDenied,
  not_found: Code.NotFound,
  already_exists: Code.AlreadyExists,
  unavailable: Code.Unavailable,
  aborted: Code.Aborted,
}

function toConnectError(thrown: unknown): ConnectError {
  if (thrown instanceof ConnectError) return thrown
  const error = AppError.from(thrown)
  const code = codes[errorKind(error.code).connect] ?? Code.Internal
  return new ConnectError(error.message, code, { [ERROR_CODE_HEADER]: error.code }, undefined, error)
}
