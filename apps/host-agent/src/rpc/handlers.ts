import { Code, type ConnectError, type HandlerContext } from '@connectrpc/connect'
import type { Logger } from '@wrenn/base'
import type { CheckpointDiffer } from '../capsule/diff/index.js'
import type { CapsuleMetrics } from '../capsule/guest/index.js'
import type { HostStatus } from '../capsule/host-status.js'
import type { GarbageCollector } from '../capsule/lifecycle/index.js'
import type { ImageStore } from '../capsule/machine.js'
import type { CapsuleManager } from '../capsule/manager.js'
import type { Traffic, UsageSampler } from '../capsule/usage/index.js'
import { toConnectError } from './convert.js'

/** What exists once the machine is up. */
export interface ServiceParts {
  readonly manager: CapsuleManager
  readonly images: ImageStore
  readonly metrics: CapsuleMetrics
  readonly usage: UsageSampler
  readonly traffic: Traffic
  readonly differ: CheckpointDiffer
  readonly garbage: GarbageCollector
}

/** What the RPC service has from its first moment on; the rest comes with {@link ServiceParts}. */
export interface ServiceDeps {
  readonly logger: Logger
  readonly status: HostStatus
  /** @throws AppError `host_unavailable` while the host agent is starting */
  readonly parts: () => ServiceParts
}

type Call<Request, Response> = (request: Request, context: HandlerContext) => Promise<Response>
type Stream<Request, Response> = (request: Request, context: HandlerContext) => AsyncGenerator<Response>

/** `unary` and `stream` as {@link createWrappers} makes them. */
export type Wrappers = ReturnType<typeof createWrappers>

/** Handlers whose errors leave with their Wrenn code; what is a bug of ours is logged, since its caller learns no more of it. */
export function createWrappers(logger: Logger) {
  const report = (thrown: unknown, context: HandlerContext): ConnectError => {
    const error = toConnectError(thrown)
    // Whoever has gone is told nothing, and what cannot be written to him is no fault.
    if (error.code === Code.Internal && !context.signal.aborted)
      logger.error({ err: thrown, method: context.method.name }, 'rpc.internal_error')
    return error
  }
  const unary =
    <Request, Response>(handle: Call<Request, Response>): Call<Request, Response> =>
    async (request, context) => {
      try {
        return await handle(request, context)
      } catch (error) {
        throw report(error, context)
      }
    }
  const stream = <Request, Response>(handle: Stream<Request, Response>): Stream<Request, Response> =>
    async function* (request, context) {
      try {
        yield* handle(request, context)
      } catch (error) {
        throw report(error, context)
      }
    }
  return { unary, stream }
}
