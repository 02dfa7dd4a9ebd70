export { AllCapsules } from './all-capsules.js'
export { PlatformWatch } from './platform-watch.js'
