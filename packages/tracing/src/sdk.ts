import { DiagLogLevel, diag } from '@opentelemetry/api'
import { OTLPTraceExporter as JsonExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { OTLPTraceExporter as ProtobufExporter } from '@opentelemetry/exporter-trace-otlp-proto'
import { detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources'
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { errorText, type Logger } from '@wrenn/base'
import type { OtlpEncoding } from './config.js'
import { OtelTracer } from './otel-tracer.js'
import { QuietExporter } from './quiet-exporter.js'
import type { Tracing, TracingOptions } from './tracing.js'

/** Whoever stops a service waits no longer for a collector that does not take its spans. */
const FLUSH_WITHIN_MS = 3_000

/** The SDK of OpenTelemetry, set up by its own environment variables, without any of its global state. */
export function startSdk(encoding: OtlpEncoding, { serviceName, version, logger }: TracingOptions): Tracing {
  const provider = tellingProblems(logger, () => {
    const exporter = encoding === 'json' ? new JsonExporter() : new ProtobufExporter()
    const named = resourceFromAttributes({ 'service.name': serviceName, 'service.version': version })
    return new BasicTracerProvider({
      resource: named.merge(detectResources({ detectors: [envDetector] })),
      spanProcessors: [new BatchSpanProcessor(new QuietExporter(exporter, logger))],
    })
  })
  logger.info({ encoding }, 'traces.started')
  return {
    tracer: new OtelTracer(provider.getTracer('wrenn', version)),
    [Symbol.asyncDispose]: async () => await flush(provider, logger),
  }
}

/** A variable that the SDK does not understand is told through its one global logger, which is ours for that moment only. */
function tellingProblems<T>(logger: Logger, setUp: () => T): T {
  const tell = (message: string): void => logger.warn({ reason: message }, 'traces.setting_ignored')
  const ignore = (): void => {}
  const messages = { error: tell, warn: ignore, info: ignore, debug: ignore, verbose: ignore }
  diag.setLogger(messages, { logLevel: DiagLogLevel.ERROR, suppressOverrideMessage: true })
  try {
    return setUp()
  } finally {
    diag.disable()
  }
}

async function flush(provider: BasicTracerProvider, logger: Logger): Promise<void> {
  const timeUp = new AbortController()
  const late = new Promise<void>((resolve) => {
    const timer = setTimeout(() => {
      logger.warn({ afterMs: FLUSH_WITHIN_MS }, 'traces.not_flushed')
      resolve()
    }, FLUSH_WITHIN_MS)
    timeUp.signal.addEventListener('abort', () => clearTimeout(timer))
  })
  const done = provider.shutdown().catch((error: unknown) => {
    logger.warn({ error: errorText(error) }, 'traces.not_flushed')
  })
  await Promise.race([done, late])
  timeUp.abort()
}
