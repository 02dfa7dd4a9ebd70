import { Code, ConnectError, type Interceptor, type StreamRequest, type UnaryRequest } from '@connectrpc/connect'
import { AppError, capsuleIds, type Span, type SpanFields, type Tracer } from '@wrenn/base'
import { ERROR_CODE_HEADER, isErrorCode } from '@wrenn/protocol'

/** What header says that a caller makes a trace (https://www.w3.org/TR/trace-context/). */
const TRACEPARENT = 'traceparent'

/** How calls are told. */
export interface CallSpans {
  readonly tracer: Tracer
  /** Of every call, such as whom it goes to. */
  readonly fields?: SpanFields
  /** Whether the other side is told of the trace, and may go on with it. */
  readonly tells: boolean
}

/** Measures the calls that are made for something that is traced, streams to their end; others are none of a trace. */
export function clientSpans({ tracer, fields = {}, tells }: CallSpans): Interceptor {
  return (next) => async (call) => {
    if (!tracer.isActive()) return await next(call)
    const span = tracer.begin(nameOf(call), { kind: 'client', fields: { ...fieldsOf(call), ...fields } })
    return await measured({ tracer, span, signal: call.signal }, async () => {
      if (tells) for (const [name, value] of Object.entries(tracer.headers())) call.header.set(name, value)
      return await next(call)
    })
  }
}

/** Measures the calls whose caller makes a trace, as parts of it; what they do is done with that span active. */
export function serverSpans(tracer: Tracer): Interceptor {
  return (next) => async (call) => {
    const from = {
      traceparent: call.header.get(TRACEPARENT) ?? undefined,
      tracestate: call.header.get('tracestate') ?? undefined,
    }
    if (from.traceparent === undefined) return await next(call)
    const span = tracer.begin(nameOf(call), { kind: 'server', from, fields: fieldsOf(call) })
    return await measured({ tracer, span, signal: call.signal }, async () => await next(call))
  }
}

type Call = UnaryRequest | StreamRequest
type Answer = Awaited<ReturnType<ReturnType<Interceptor>>>

interface Measuring {
  readonly tracer: Tracer
  readonly span: Span
  /** Of the call, which it ends. */
  readonly signal: AbortSignal
}

async function measured(call: Measuring, ask: () => Promise<Answer>): Promise<Answer> {
  const { tracer, span } = call
  try {
    const answer = await tracer.within(span, ask)
    if (answer.stream) return { ...answer, message: followed(call, answer.message) }
    span.end()
    return answer
  } catch (error) {
    tellEnd(span, error)
    span.end()
    throw error
  }
}

/**
 * What gives the messages goes on where it is asked for the next one, so that each time the span has to be active. A client that leaves a
 * stream is seen by the signal alone: Connect passes no `return` on.
 */
function followed<T>({ tracer, span, signal }: Measuring, messages: AsyncIterable<T>): AsyncIterable<T> {
  let isOver = false
  const end = (...why: readonly unknown[]): void => {
    if (isOver) return
    isOver = true
    signal.removeEventListener('abort', aborted)
    for (const error of why) tellEnd(span, error)
    span.end()
  }
  const aborted = (): void => end(signal.reason)
  const follow = async (step: () => Promise<IteratorResult<T>>): Promise<IteratorResult<T>> => {
    try {
      const result = await tracer.within(span, step)
      if (result.done === true) end()
      return result
    } catch (error) {
      end(error)
      throw error
    }
  }
  if (signal.aborted) aborted()
  else signal.addEventListener('abort', aborted)
  return {
    [Symbol.asyncIterator]: () => {
      const items = messages[Symbol.asyncIterator]()
      const leave = items.return?.bind(items)
      const fail = items.throw?.bind(items)
      return {
        next: () => follow(() => items.next()),
        ...(leave === undefined ? {} : { return: (value?: unknown) => follow(() => leave(value)) }),
        ...(fail === undefined ? {} : { throw: (error?: unknown) => follow(() => fail(error)) }),
      }
    },
  }
}

function nameOf({ service, method }: Call): string {
  return `${service.typeName}/${method.name}`
}

function fieldsOf(call: Call): SpanFields {
  return {
    'rpc.system': 'connect_rpc',
    'rpc.service': call.service.typeName,
    'rpc.method': call.method.name,
    'wrenn.capsule_id': call.stream ? undefined : capsuleIdOf(call.message),
  }
}

function capsuleIdOf(message: object): string | undefined {
  return 'capsuleId' in message && typeof message.capsuleId === 'string' && capsuleIds.is(message.capsuleId)
    ? message.capsuleId
    : undefined
}

/** The code by which our callers know the failure, or the transport's name for it. A guest may call it anything. */
function codeOf(thrown: unknown): string {
  if (thrown instanceof AppError) return thrown.code
  const error = ConnectError.from(thrown)
  const named = error.metadata.get(ERROR_CODE_HEADER)
  if (named !== null && isErrorCode(named)) return named
  // Nobody gave it a code: a bug.
  if (error.code === Code.Unknown) return 'internal'
  return Code[error.code].replace(/(?<=.)(?=[A-Z])/g, '_').toLowerCase()
}

/** Whoever no longer wants the answer makes no failure of the call. */
function tellEnd(span: Span, error: unknown): void {
  const code = codeOf(error)
  if (code === 'canceled') span.set({ 'error.type': code })
  else span.fail(code)
}
