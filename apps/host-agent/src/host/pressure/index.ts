export { type MemoryReading, readMemory } from './readings.js'
export type { PressureCapsule, Shortage } from './victims.js'
export {
  type PressureLimits,
  type PressureReason,
  type PressureStatus,
  PressureWatch,
  type PressureWatchOptions,
  type ResourceStatus,
} from './watch.js'
