import { type KernelMessage, objectOf, textOf } from './kernel-messages.js'

/** One line of an answer to `POST /execute`, as E2B's clients read it. */
export type ExecutionEvent =
  | { readonly type: 'stdout' | 'stderr'; readonly text: string }
  | { readonly type: 'result'; readonly is_main_result: boolean; readonly [format: string]: unknown }
  | { readonly type: 'error'; readonly name: string; readonly value: string; readonly traceback: string }
  | { readonly type: 'number_of_executions'; readonly execution_count: number }
  | { readonly type: 'end_of_execution' }

/** Formats that have a name of their own; all others keep the kernel's. */
const FORMATS: Readonly<Record<string, string>> = {
  'text/plain': 'text',
  'text/html': 'html',
  'text/markdown': 'markdown',
  'text/latex': 'latex',
  'image/svg+xml': 'svg',
  'image/png': 'png',
  'image/jpeg': 'jpeg',
  'application/pdf': 'pdf',
  'application/json': 'json',
  'application/javascript': 'javascript',
  'e2b/df': 'data',
  'e2b/chart': 'chart',
}

/** What a client is told of a kernel's message; `undefined`: nothing. */
export function eventOf({ type, content }: KernelMessage): ExecutionEvent | undefined {
  switch (type) {
    case 'stream':
      return { type: content.name === 'stderr' ? 'stderr' : 'stdout', text: textOf(content.text) ?? '' }
    case 'execute_result':
    case 'display_data':
      return { type: 'result', is_main_result: type === 'execute_result', ...resultOf(objectOf(content.data)) }
    case 'error':
      return errorEvent(textOf(content.ename) ?? '', textOf(content.evalue) ?? '', tracebackOf(content.traceback))
    case 'execute_input':
      if (typeof content.execution_count !== 'number') return undefined
      return { type: 'number_of_executions', execution_count: content.execution_count }
    default:
      return undefined
  }
}

/** An error that a program reads as one of its code's. */
export function errorEvent(name: string, value: string, traceback = ''): ExecutionEvent {
  return { type: 'error', name, value, traceback }
}

function resultOf(data: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const [format, value] of Object.entries(data)) {
    const name = FORMATS[format] ?? format
    // A program must not be able to write the fields of our own.
    if (name === 'type' || name === 'is_main_result') continue
    result[name] = name === 'text' ? withoutQuotes(joined(value)) : joined(value)
  }
  return result
}

/** Kernels may give a text as its lines. */
function joined(value: unknown): unknown {
  return Array.isArray(value) && value.every((line) => typeof line === 'string') ? value.join('') : value
}

/** Programs made for E2B compare the text of a string with the string, not with its representation. */
function withoutQuotes(value: unknown): unknown {
  if (typeof value !== 'string' || value.length < 2) return value
  const [first, last] = [value[0], value[value.length - 1]]
  return first === last && (first === "'" || first === '"') ? value.slice(1, -1) : value
}

function tracebackOf(lines: unknown): string {
  return Array.isArray(lines) ? lines.filter((line) => typeof line === 'string').join('\n') : ''
}
