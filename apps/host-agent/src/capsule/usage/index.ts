export { type UsagePoint, UsageSampler } from './sampler.js'
