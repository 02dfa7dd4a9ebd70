import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Logger } from '@wrenn/base'
import type { Quota } from '@wrenn/protocol'
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import type { Limits } from '../config.js'
import type { Activity } from '../domain/activity.js'
import type { ApiKeys } from '../domain/api-keys.js'
import type { AtomicExecs } from '../domain/atomic.js'
import type { Capsules } from '../domain/capsules.js'
import type { Checkpoints } from '../domain/checkpoints.js'
import type { Lifecycle } from '../domain/lifecycle.js'
import type { Readiness } from '../domain/readiness.js'
import type { Snapshots } from '../domain/snapshots.js'
import type { Wake } from '../domain/wake.js'
import type { Host } from '../host/host.js'
import type { ApiKeyOwner } from '../store/teams.js'

/** What requests are served with. */
export interface Services {
  readonly apiKeys: ApiKeys
  readonly capsules: Capsules
  readonly lifecycle: Lifecycle
  readonly checkpoints: Checkpoints
  readonly snapshots: Snapshots
  /** What a team uses and may use. */
  readonly quota: (teamId: string) => Promise<Quota>
  readonly wake: Wake
  readonly atomic: AtomicExecs
  readonly host: Host
  readonly activity: Activity
  readonly readiness: Readiness
  readonly limits: Limits
  /** Origins of pages that may use the API; `*` is any. */
  readonly corsOrigins: readonly string[]
  readonly logger: Logger
  readonly version: string
}

export type App = FastifyInstance<RawServerDefault, IncomingMessage, ServerResponse, FastifyBaseLogger, ZodTypeProvider>

declare module 'fastify' {
  interface FastifyRequest {
    /** Whose key came with the request; `null` only where a WebSocket authenticates by its first message. */
    owner: ApiKeyOwner | null
  }
  interface FastifyContextConfig {
    /** `socket`: credentials may come as the first message. @default 'required' */
    auth?: 'required' | 'socket'
  }
}
