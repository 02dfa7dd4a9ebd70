import type { Migration } from 'kysely'
import * as accounts from './0001-accounts.js'
import * as capsules from './0002-capsules.js'
import * as lifecycle from './0003-lifecycle.js'
import * as workInFlight from './0004-work-in-flight.js'
import * as poolUsage from './0005-pool-usage.js'
import * as portAccess from './0006-port-access.js'
import * as apiKeys from './0007-api-keys.js'
import * as audit from './0008-audit.js'
import * as lifetimes from './0009-lifetimes.js'
import * as people from './0010-people.js'
import * as mail from './0011-mail.js'
import * as egress from './0012-egress.js'
import * as teams from './0013-teams.js'
import * as deviceLogins from './0014-device-logins.js'
import * as templateBuilds from './0015-template-builds.js'
import * as setUp from './0016-set-up.js'
import * as events from './0017-events.js'
import * as stepResults from './0018-step-results.js'
import * as oauth from './0019-oauth.js'
import * as accountDeletion from './0020-account-deletion.js'
import * as secondFactors from './0021-second-factors.js'
import * as plans from './0022-plans.js'
import * as listIndexes from './0023-list-indexes.js'
import * as dataAccess from './0024-data-access.js'
import * as metrics from './0025-metrics.js'
import * as channels from './0026-channels.js'
import * as usage from './0027-usage.js'
import * as templateTags from './0028-template-tags.js'
import * as capsulesLive from './0029-capsules-live.js'
import * as buildTraces from './0030-build-traces.js'
import * as egressRules from './0031-egress-rules.js'
import * as registryLogins from './0032-registry-logins.js'
import * as buildSteps from './0033-build-steps.js'
import * as hostsAndQuotasTold from './0034-hosts-and-quotas-told.js'
import * as buildsTold from './0035-builds-told.js'
import * as hostAuthorities from './0037-host-authorities.js'
import * as lago from './0038-lago.js'
import * as traffic from './0039-traffic.js'
import * as joinedHosts from './0040-joined-hosts.js'
import * as manyHosts from './0041-many-hosts.js'
import * as placement from './0042-placement.js'
import * as hostTags from './0045-host-tags.js'
import * as hibernation from './0046-hibernation.js'
import * as hostDrains from './0047-host-drains.js'
import * as storedGenerations from './0048-stored-generations.js'
import * as capsulesOnHost from './0049-capsules-on-host.js'
import * as fallbackStates from './0050-fallback-states.js'
import * as secrets from './0051-secrets.js'

/** In the order of their names; a name never changes once released. */
export const migrations: Readonly<Record<string, Migration>> = {
  '0001-accounts': accounts,
  '0002-capsules': capsules,
  '0003-lifecycle': lifecycle,
  '0004-work-in-flight': workInFlight,
  '0005-pool-usage': poolUsage,
  '0006-port-access': portAccess,
  '0007-api-keys': apiKeys,
  '0008-audit': audit,
  '0009-lifetimes': lifetimes,
  '0010-people': people,
  '0011-mail': mail,
  '0012-egress': egress,
  '0013-teams': teams,
  '0014-device-logins': deviceLogins,
  '0015-template-builds': templateBuilds,
  '0016-set-up': setUp,
  '0017-events': events,
  '0018-step-results': stepResults,
  '0019-oauth': oauth,
  '0020-account-deletion': accountDeletion,
  '0021-second-factors': secondFactors,
  '0022-plans': plans,
  '0023-list-indexes': listIndexes,
  '0024-data-access': dataAccess,
  '0025-metrics': metrics,
  '0026-channels': channels,
  '0027-usage': usage,
  '0028-template-tags': templateTags,
  '0029-capsules-live': capsulesLive,
  '0030-build-traces': buildTraces,
  '0031-egress-rules': egressRules,
  '0032-registry-logins': registryLogins,
  '0033-build-steps': buildSteps,
  '0034-hosts-and-quotas-told': hostsAndQuotasTold,
  '0035-builds-told': buildsTold,
  '0037-host-authorities': hostAuthorities,
  '0038-lago': lago,
  '0039-traffic': traffic,
  '0040-joined-hosts': joinedHosts,
  '0041-many-hosts': manyHosts,
  '0042-placement': placement,
  '0045-host-tags': hostTags,
  '0046-hibernation': hibernation,
  '0047-host-drains': hostDrains,
  '0048-stored-generations': storedGenerations,
  '0049-capsules-on-host': capsulesOnHost,
  '0050-fallback-states': fallbackStates,
  '0051-secrets': secrets,
}
