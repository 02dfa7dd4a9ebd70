import { WrennError } from '@wrenn/sdk'

/** A failure in words. */
export interface Failure {
  /** One sentence. */
  readonly sentence: string
  /** Of the platform's table of errors; what to search for. */
  readonly code: string
  /** The next step. */
  readonly hint: string | undefined
  /** What an operator needs to find it in the logs. */
  readonly requestId: string | undefined
}

/** What to tell of whatever was thrown: nothing is swallowed. */
export function failureOf(error: unknown): Failure {
  if (error instanceof WrennError) {
    return { sentence: error.message, code: error.code, hint: error.hint, requestId: error.requestId }
  }
  const sentence = error instanceof Error ? error.message : String(error)
  return {
    sentence,
    code: 'page_error',
    hint: 'This is a fault of the page: loading it anew may help.',
    requestId: undefined,
  }
}

/** Whether it is only that we stopped asking. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError'
}
