import { noTracer } from '@wrenn/base'
import type { TracingConfig } from './config.js'
import type { Tracing, TracingOptions } from './tracing.js'

/** Starts tracing where the environment asks for it; elsewhere nothing of OpenTelemetry is even loaded. Never fails. */
export async function startTracing(config: TracingConfig, options: TracingOptions): Promise<Tracing> {
  if (config.is === 'refused') options.logger.warn({ reason: config.reason }, 'traces.off')
  if (config.is !== 'on') return { tracer: noTracer, [Symbol.asyncDispose]: async () => {} }
  const { startSdk } = await import('./sdk.js')
  return startSdk(config.encoding, options)
}
