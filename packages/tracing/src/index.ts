export { readTracing, type TracingConfig } from './config.js'
export { type CallSpans, clientSpans, serverSpans } from './rpc.js'
export { startTracing } from './start-tracing.js'
export type { Tracing, TracingOptions } from './tracing.js'
