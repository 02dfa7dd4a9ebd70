import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { noSteps, noTracer, silentLogger } from '@wrenn/base'
import { errorTable } from '@wrenn/protocol'
import { readConfig } from './config.js'
import { ApiKeys, KeyAdmin, KeyWatch } from './domain/accounts/index.js'
import { AccessLog, Audit, AuditChains } from './domain/audit/index.js'
import { Activity, Capsules, Egress, Lifecycle } from './domain/capsules/index.js'
import { ChannelLog, Channels } from './domain/channels/index.js'
import { EventFeed } from './domain/events/index.js'
import { HostAuthority, JoinedHosts, Joining, Placement } from './domain/hosts/index.js'
import { CallMeter, readQuota } from './domain/limits/index.js'
import { CapsuleHistory } from './domain/metrics/index.js'
import { Drains, Moves } from './domain/moves/index.js'
import { Operations } from './domain/operations/index.js'
import { createPeople } from './domain/people/index.js'
import { AllCapsules, PlatformWatch, UnknownCapsules } from './domain/platform/index.js'
import { Checkpoints, Snapshots } from './domain/points/index.js'
import { createInFlight, Readiness } from './domain/reconcile/index.js'
import { Keyring, TeamSecrets } from './domain/secrets/index.js'
import { Invitations, Members, Plans, TeamAdmin, Teams } from './domain/teams/index.js'
import { createBuilds } from './domain/templates/index.js'
import { Usage } from './domain/usage/index.js'
import { Hosts } from './host/hosts.js'
import { linkHost } from './host/link.js'
import { createApp } from './http/app.js'
import { apiDocument } from './http/openapi.js'
import { lifecyclePage } from './lifecycle-page.js'
import { Mailer } from './mail/index.js'
import { Sender } from './notify/index.js'
import { openDatabase } from './store/database.js'
import { Notifications } from './store/notifications.js'
import { findTeamName } from './store/teams.js'
import { VERSION } from './version.js'

/** Writes docs/openapi.json, docs/errors.md and docs/lifecycle.md; with `--check` it only tells whether they are up to date. */
async function main(): Promise<void> {
  const docs = new URL('../../../docs/', import.meta.url)
  const files = { 'openapi.json': await openApi(), 'errors.md': errorsPage(), 'lifecycle.md': lifecyclePage() }
  let stale = false
  for (const [name, content] of Object.entries(files)) {
    const path = fileURLToPath(new URL(name, docs))
    if ((await readFile(path, 'utf8').catch(() => '')) === content) continue
    stale = true
    if (process.argv.includes('--check')) process.stderr.write(`docs/${name} is out of date: run npm run generate\n`)
    else {
      await mkdir(dirname(path), { recursive: true })
      await writeFile(path, content)
    }
  }
  process.exitCode = stale && process.argv.includes('--check') ? 1 : 0
}

/** Builds the routes over services that are never called. */
async function openApi(): Promise<string> {
  const {
    limits,
    builds: buildLimits,
    mail,
  } = readConfig({
    DATABASE_URL: 'postgres:///',
    WRENN_HOST_AGENT_ADDRESS: 'http://127.0.0.1:9',
  })
  const logger = silentLogger
  const db = openDatabase({ url: 'postgres:///' })
  const host = Hosts.only(linkHost('http://127.0.0.1:9'))
  const operations = new Operations({ db, logger, executors: {} })
  const keyring = new Keyring([])
  const placement = new Placement({ db, hosts: host, share: limits.hosts })
  const deps = { db, host, placement, operations, limits, logger, tracer: noTracer, keyring }
  const capsules = new Capsules({ ...deps, startWaitMs: 0 })
  const lifecycle = new Lifecycle({ ...deps, canHibernate: false })
  const checkpoints = new Checkpoints(deps)
  const activity = new Activity(db, logger)
  const notifications = new Notifications({ url: '', logger })
  const apiKeys = new ApiKeys({ db, notifications, logger })
  const callMeter = new CallMeter({ db, logger, defaultLimit: 0 })
  const mailer = new Mailer()
  const people = createPeople({
    db,
    notifications,
    apiKeys,
    mailer,
    signUp: 'closed',
    accountGraceSec: 0,
    pendingAccountSec: 0,
    keyring: new Keyring([]),
    publicUrl: 'http://localhost',
    providers: [],
    logger,
  })
  const accessLog = new AccessLog({ db, notifications, logger })
  const parts = { ...deps, notifications, capsules, lifecycle, checkpoints, activity, accessLog }
  const { wake, atomic, lifetimes } = createInFlight({ ...parts, startWaitMs: 0, outputLimitBytes: 0 })
  const snapshots = new Snapshots(deps)
  const never = { snapshotWaitMs: 0, retentionMs: 0, lookEveryMs: 0 }
  const builds = createBuilds({
    ...deps,
    ...never,
    capsules,
    snapshots,
    lifecycle,
    wake,
    buildLimits,
    keyring: new Keyring([]),
    reach: noSteps,
  })
  const authority = new HostAuthority({ db, keyring })
  const unknownCapsules = new UnknownCapsules({ db, host })
  const secrets = new TeamSecrets({ db, keyring, logger })
  const joinedHosts = new JoinedHosts({ db, authority, takesHosts: false })
  const moves = new Moves({ ...deps, canHibernate: false })
  const app = await createApp({
    moves,
    drains: new Drains({ db, joinedHosts, moves }),
    joinedHosts,
    joining: new Joining({ db, authority, throttle: people.services.throttle }),
    wake,
    atomic,
    lifetimes,
    apiKeys,
    keyAdmin: new KeyAdmin({ db, apiKeys }),
    keyWatch: new KeyWatch({ db, logger }),
    ...people.services,
    teams: new Teams({ db, onChange: people.onChange, onAuditChange: () => accessLog.forget() }),
    teamAdmin: new TeamAdmin(db),
    plans: new Plans(db),
    allCapsules: new AllCapsules(db),
    unknownCapsules,
    onOperationEnd: (listener) => operations.onEnd(listener),
    platformWatch: new PlatformWatch({ db, host, unknownCapsules, mail, lago: undefined, version: VERSION }),
    callMeter,
    members: new Members({ db, mailer, onChange: people.onChange }),
    invitations: new Invitations({ db, mailer }),
    dashboard: undefined,
    events: new EventFeed({ db, notifications }),
    channels: new Channels({ db, keyring: new Keyring([]), sender: new Sender({ allowed: [] }) }),
    channelLog: new ChannelLog(db),
    history: new CapsuleHistory({ db, host }),
    usage: new Usage(db),
    accessLog,
    audit: new Audit({ db, chains: new AuditChains({ db, logger, retentionMs: 0 }) }),
    capsules,
    lifecycle,
    egress: new Egress({ ...deps, secrets }),
    checkpoints,
    snapshots,
    templateBuilds: builds.service,
    templateTags: builds.tags,
    registryLogins: builds.logins,
    secrets,
    teamName: (teamId) => findTeamName(db, teamId),
    quota: (teamId) => readQuota({ db, host, callMeter }, teamId, limits),
    host,
    activity,
    readiness: new Readiness(db, host),
    limits,
    proxyDomain: 'localhost',
    corsOrigins: [],
    trustedProxies: [],
    logger,
    tracer: noTracer,
    version: VERSION,
  })
  await app.ready()
  const document = apiDocument(app)
  await app.close()
  await db.destroy()
  return `${JSON.stringify(document, null, 2)}\n`
}

function errorsPage(): string {
  const rows = Object.entries(errorTable).map(([code, kind]) => {
    const hint = 'hint' in kind ? kind.hint : ''
    return `| \`${code}\` | ${kind.status} | ${kind.retryable ? 'yes' : 'no'} | ${hint} |`
  })
  return `# Errors

Generated from \`packages/protocol/src/errors.ts\` by \`npm run generate\`.

Every error answer has this body; on a WebSocket the same code comes in an \`error\` frame.

\`\`\`json
{ "error": { "code": "file_not_found", "message": "…", "hint": "…", "details": {}, "requestId": "req-…" } }
\`\`\`

Branch on \`code\`: it is stable, the message is for people. \`hint\` and \`details\` may be absent. "Retry" says whether the same
call can succeed later without a change. A command that fails or runs into its \`timeout_sec\` is no error: the answer is 200
with its exit code (124 and \`timed_out\` after a timeout, 128 + n after signal n).

| Code | Status | Retry | Next step |
|---|---|---|---|
${rows.join('\n')}
`
}

await main()
