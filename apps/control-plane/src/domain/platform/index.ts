export { AllCapsules } from './all-capsules.js'
export { type PlatformCounts, PlatformWatch } from './platform-watch.js'
export { UnknownCapsules } from './unknown-capsules.js'
