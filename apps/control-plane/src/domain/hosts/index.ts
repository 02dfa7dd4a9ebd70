export { checkpointFactsOf, exitOf, factsOf, lifecycleTimingsOf, savedFactsOf, snapshotFactsOf } from './host-facts.js'
export { knownHostId, rememberHost } from './known-host.js'
export { type PoolUsageDeps, refreshPoolUsage } from './pool-usage.js'
export { MIN_FREE } from './shortage.js'
