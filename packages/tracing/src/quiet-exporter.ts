import { type ExportResult, ExportResultCode } from '@opentelemetry/core'
import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace-base'
import { errorText, type Logger } from '@wrenn/base'

/** Tells of an outage of what takes the spans once, and once of its end, however many batches are lost meanwhile. */
export class QuietExporter implements SpanExporter {
  readonly #exporter: SpanExporter
  readonly #logger: Logger
  #lostSpans = 0

  constructor(exporter: SpanExporter, logger: Logger) {
    this.#exporter = exporter
    this.#logger = logger
  }

  export(spans: ReadableSpan[], onResult: (result: ExportResult) => void): void {
    this.#exporter.export(spans, ({ code, error }) => {
      if (code === ExportResultCode.SUCCESS) this.#succeeded()
      else this.#failed(spans.length, error)
      // The SDK would tell of each failure, and do nothing else about it.
      onResult({ code: ExportResultCode.SUCCESS })
    })
  }

  async forceFlush(): Promise<void> {
    await this.#exporter.forceFlush?.()
  }

  async shutdown(): Promise<void> {
    await this.#exporter.shutdown()
  }

  #succeeded(): void {
    if (this.#lostSpans === 0) return
    this.#logger.info({ lostSpans: this.#lostSpans }, 'traces.exported_again')
    this.#lostSpans = 0
  }

  #failed(spans: number, error: Error | undefined): void {
    if (this.#lostSpans === 0) this.#logger.warn({ error: errorText(error ?? 'no answer') }, 'traces.not_exported')
    this.#lostSpans += spans
  }
}
