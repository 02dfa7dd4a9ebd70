export {
  createNetwork,
  type Network,
  type NetworkConfig,
  type NetworkOptions,
  type Slot,
  type SlotUse,
  type StartOptions,
  type StartResult,
} from './network.js'
export { type EdgeRule, type EgressPolicy, privateRanges } from './policy.js'
export type { TapCounters } from './tap-counters.js'
export { ENDED_TRAFFIC, type GuestTraffic } from './traffic.js'
