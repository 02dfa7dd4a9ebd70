export { archivePieces, openArchive, unpackArchive } from './archive.js'
export { asUser, type FileWish, type GuestClient, type GuestFile, type GuestStream } from './client.js'
export { BOOT_TIMEOUT_MS, type Guest, GuestFactory, type GuestPlan, unlessItDies, unrecordedPlan } from './guest.js'
export { CapsuleMetrics } from './metrics.js'
export { patienceOf } from './pulse.js'
export { newSecret } from './secret.js'
export {
  connectProcess,
  identify,
  identifyBooted,
  identifyCopy,
  identifyFromSnapshot,
  identifyWaiting,
  startProcess,
  untilReady,
  warmUp,
} from './session.js'
