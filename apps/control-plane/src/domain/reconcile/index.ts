export { createExecutors } from './executors.js'
export { createInFlight } from './in-flight.js'
export { Readiness } from './readiness.js'
export { Reconciler } from './reconciler.js'
