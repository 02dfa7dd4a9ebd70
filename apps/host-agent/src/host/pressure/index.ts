export { type MemoryReading, parseMeminfo, parsePressure, readMemory } from './readings.js'
export { requireSpace, type SpacePool, type SpaceRequest } from './space.js'
export { chooseVictims, type PressureCapsule, type Shortage } from './victims.js'
export {
  type PressureLimits,
  type PressureReason,
  type PressureStatus,
  PressureWatch,
  type PressureWatchOptions,
  type ResourceStatus,
} from './watch.js'
