import type { Logger, Tracer } from '@wrenn/base'

/** The tracer of a process. Disposing sends what is left of its spans, for a few seconds at most, and never fails. */
export interface Tracing extends AsyncDisposable {
  readonly tracer: Tracer
}

/** Who makes the spans. */
export interface TracingOptions {
  /** What the process is called where `OTEL_SERVICE_NAME` says nothing. */
  readonly serviceName: string
  readonly version: string
  readonly logger: Logger
}
