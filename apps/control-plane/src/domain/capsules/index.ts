export { Activity } from './activity.js'
export { toCapsule } from './capsule-view.js'
export { type CapsuleSpec, Capsules } from './capsules.js'
export { carryPendingEgress, DEFAULT_POLICY } from './carry-egress.js'
export { Egress } from './egress.js'
export { createExecutor } from './execute-create.js'
export { destroyExecutor, writeDestroyed } from './execute-destroy.js'
export { forkExecutor } from './execute-fork.js'
export { hibernateExecutor, requireStorable } from './execute-hibernate.js'
export { answer, fromDiskOf, pauseExecutor, resumeExecutor, settledIn, settledTruthOf } from './execute-pause-resume.js'
export { Hibernator } from './hibernator.js'
export { Idle } from './idle.js'
export type { Life } from './life.js'
export {
  type ForkSpec,
  Lifecycle,
  type LifecycleDeps,
  NO_KEY,
  NO_STORE,
  paramsOf,
  type RequestOptions,
  type ResumeOptions,
} from './lifecycle.js'
export { Lifetimes } from './lifetimes.js'
export {
  illegal,
  isLegal,
  mayHaveSavedState,
  needAnyCapsule,
  needCapsule,
  needLegal,
  type Request,
  requests,
} from './need-capsule.js'
export { holdCheckpoint, needCheckpoint } from './need-checkpoint.js'
export { type CapsuleRef, Wake } from './wake.js'
