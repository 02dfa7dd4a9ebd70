export { type UsagePoint, UsageSampler } from './sampler.js'
export { type CapsuleTraffic, Traffic } from './traffic.js'
