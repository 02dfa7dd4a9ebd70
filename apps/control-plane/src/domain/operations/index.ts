export { hashJson } from './canonical.js'
export { decodeCursor, encodeCursor } from './cursor.js'
export {
  conclude,
  destroyOnHost,
  type ExecutorDeps,
  failure,
  isLasting,
  isSilence,
  lockLasting,
  logFailure,
  overtaken,
  truthOf,
} from './executor.js'
export {
  type EndedOperation,
  type Executor,
  fieldsOf,
  LEASE_MS,
  newOperation,
  Operations,
  throwFailure,
} from './operations.js'
export { findEarlier, insertNew, joinRunning, resultOf, type Submission, submit } from './submit.js'
