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
