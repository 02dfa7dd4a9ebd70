import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Logger, Span, Tracer } from '@wrenn/base'
import type { Permission, Quota } from '@wrenn/protocol'
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import type { Limits } from '../config.js'
import type { ApiKeys, KeyAdmin, KeyWatch, Principal } from '../domain/accounts/index.js'
import type { AccessLog, Audit } from '../domain/audit/index.js'
import type { Activity, Capsules, Egress, Lifecycle, Lifetimes, Wake } from '../domain/capsules/index.js'
import type { ChannelLog, Channels } from '../domain/channels/index.js'
import type { EventFeed } from '../domain/events/index.js'
import type { JoinedHosts, Joining } from '../domain/hosts/index.js'
import type { CallMeter } from '../domain/limits/index.js'
import type { CapsuleHistory } from '../domain/metrics/index.js'
import type { Drains, Moves } from '../domain/moves/index.js'
import type { EndedOperation } from '../domain/operations/index.js'
import type {
  AccountEnds,
  Accounts,
  Confirmations,
  DeviceLogins,
  Factors,
  OauthLogins,
  PasskeyLogins,
  SecondFactors,
  Sessions,
  SessionTokens,
  SetUp,
  Throttle,
  UserAdmin,
} from '../domain/people/index.js'
import type { AllCapsules, PlatformWatch, UnknownCapsules } from '../domain/platform/index.js'
import type { AtomicExecs, Checkpoints, Snapshots } from '../domain/points/index.js'
import type { Readiness } from '../domain/reconcile/index.js'
import type { TeamSecrets } from '../domain/secrets/index.js'
import type { Invitations, Members, Plans, TeamAdmin, Teams } from '../domain/teams/index.js'
import type { RegistryLogins, TemplateBuilds, TemplateTags } from '../domain/templates/index.js'
import type { Usage } from '../domain/usage/index.js'
import type { Hosts } from '../host/hosts.js'
import type { Dashboard } from './dashboard/dashboard.js'

/** What requests are served with. */
export interface Services {
  readonly apiKeys: ApiKeys
  readonly keyAdmin: KeyAdmin
  /** Tells what is open for long that its key or session has ended. */
  readonly keyWatch: KeyWatch
  readonly sessionTokens: SessionTokens
  readonly sessions: Sessions
  readonly accounts: Accounts
  readonly accountEnds: AccountEnds
  readonly confirmations: Confirmations
  readonly factors: Factors
  readonly secondFactors: SecondFactors
  readonly passkeyLogins: PasskeyLogins
  readonly deviceLogins: DeviceLogins
  readonly oauthLogins: OauthLogins
  readonly setUp: SetUp
  readonly userAdmin: UserAdmin
  readonly teams: Teams
  readonly teamAdmin: TeamAdmin
  readonly plans: Plans
  readonly allCapsules: AllCapsules
  readonly unknownCapsules: UnknownCapsules
  /** Machines that run capsules. */
  readonly joinedHosts: JoinedHosts
  readonly moves: Moves
  readonly drains: Drains
  readonly joining: Joining
  readonly platformWatch: PlatformWatch
  /** Has `listener` told of operations that this process has ended. */
  readonly onOperationEnd: (listener: (ended: EndedOperation) => void) => void
  readonly callMeter: CallMeter
  readonly members: Members
  readonly invitations: Invitations
  readonly throttle: Throttle
  readonly audit: Audit
  /** Commands and file operations, for teams that want them in their audit trail. */
  readonly accessLog: AccessLog
  readonly events: EventFeed
  /** Where teams want their events sent to. */
  readonly channels: Channels
  readonly channelLog: ChannelLog
  readonly capsules: Capsules
  readonly lifecycle: Lifecycle
  readonly egress: Egress
  readonly checkpoints: Checkpoints
  readonly snapshots: Snapshots
  readonly templateBuilds: TemplateBuilds
  readonly registryLogins: RegistryLogins
  readonly secrets: TeamSecrets
  readonly templateTags: TemplateTags
  readonly teamName: (teamId: string) => Promise<string | undefined>
  /** What a team uses and may use. */
  readonly quota: (teamId: string) => Promise<Quota>
  readonly wake: Wake
  readonly atomic: AtomicExecs
  readonly lifetimes: Lifetimes
  readonly host: Hosts
  /** What capsules have used. */
  readonly history: CapsuleHistory
  /** What teams have used. */
  readonly usage: Usage
  readonly activity: Activity
  readonly readiness: Readiness
  readonly limits: Limits
  /** `undefined` where none was built. */
  readonly dashboard: Dashboard | undefined
  /** Below which each port of a capsule has a name; with the port that clients reach it at, unless that is this listener's. */
  readonly proxyDomain: string
  /** Origins of pages that may use the API; `*` is any. */
  readonly corsOrigins: readonly string[]
  /** Whose word about where a request comes from is believed: addresses and networks of proxies. */
  readonly trustedProxies: readonly string[]
  readonly logger: Logger
  readonly tracer: Tracer
  readonly version: string
}

/** Fastify with types from zod: a route's schema is what its handler sees, and what the document says. */
export type App = FastifyInstance<RawServerDefault, IncomingMessage, ServerResponse, FastifyBaseLogger, ZodTypeProvider>

declare module 'fastify' {
  interface FastifyRequest {
    /** Who makes the request; `null` on public routes, and where a WebSocket authenticates by its first message. */
    principal: Principal | null
    /** What an entry of the audit trail says of it beside its action, once it is known that the capsule may be used; `null` before. */
    access: Record<string, string | number | undefined> | null
    /** What measures it; `null` where nothing does. */
    span: Span | null
  }
  interface FastifyContextConfig {
    /** What a request needs; every route says it. `public`: no credentials at all. */
    permission?: Permission | 'public'
    /** `socket`: credentials may come as the first message. @default 'required' */
    auth?: 'required' | 'socket'
    /** What it does inside a capsule, as the audit trails of teams that want that call it. */
    records?: `capsule.${string}`
  }
}
