import { AppError } from './errors.js'

/** What a span says of what it measured; absent fields are left out. Never a secret, a body, a query or a name that a user chose. */
export type SpanFields = Readonly<Record<string, string | number | boolean | undefined>>

/** Headers of a request, as servers have them. */
type Headers = Readonly<Record<string, string | readonly string[] | undefined>>

/** How a span begins. */
export interface SpanOptions {
  /** `server` is a request that somebody else made, `client` one that we make. @default 'internal' */
  readonly kind?: 'internal' | 'server' | 'client'
  readonly fields?: SpanFields
  /** Goes on with the trace that these name (W3C Trace Context), if they do. @default below the active span */
  readonly from?: Headers
}

/** One measured piece of work. Whoever begins it ends it, once; after that nothing is added. */
export interface Span {
  /** Of the whole trace; `undefined` where no trace is made. */
  readonly traceId: string | undefined
  set(fields: SpanFields): void
  /** Says that the work failed, with the code of the error and nothing else of it. Of several codes the first counts. */
  fail(code: string): void
  end(): void
}

/** What our code needs to tell how long pieces of a request took, across processes. Nothing of it throws or waits. */
export interface Tracer {
  /** Whether there are spans at all; what has a price without any is not even set up then. */
  readonly isOn: boolean
  /** Whether a span is active here, which new ones go below. */
  isActive(): boolean
  begin(name: string, options?: SpanOptions): Span
  /** Calls `work` with `span` active, for all that it begins, however late. */
  within<T>(span: Span, work: () => T): T
  /** Calls `work` with no span active: for what goes on by itself. */
  apart<T>(work: () => T): T
  /** Tells of what is over already, below the active span if there is one. Times are those of `performance.now()`. */
  record(name: string, fromMs: number, untilMs: number, fields?: SpanFields): void
  /** What tells another process which span is active. */
  headers(): Readonly<Record<string, string>>
}

const nothing = (): void => {}
const noSpan: Span = { traceId: undefined, set: nothing, fail: nothing, end: nothing }

/** Makes no spans: the default of whatever may run without a tracer. */
export const noTracer: Tracer = {
  isOn: false,
  isActive: () => false,
  begin: () => noSpan,
  within: (_span, work) => work(),
  apart: (work) => work(),
  record: nothing,
  headers: () => ({}),
}

/** Measures `work` as a span that is active in it, and fails with it. @param codeOf by which callers know a failure */
export async function inSpan<T>(
  tracer: Tracer,
  name: string,
  options: SpanOptions,
  work: (span: Span) => Promise<T>,
  codeOf: (thrown: unknown) => string = (thrown) => AppError.from(thrown).code,
): Promise<T> {
  if (!tracer.isOn) return await work(noSpan)
  const span = tracer.begin(name, options)
  try {
    return await tracer.within(span, () => work(span))
  } catch (error) {
    span.fail(codeOf(error))
    throw error
  } finally {
    span.end()
  }
}
