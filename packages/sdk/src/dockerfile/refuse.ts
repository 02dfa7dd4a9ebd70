import { createError, WrennError } from '../errors.js'

/**
 * The error for what a Dockerfile asks for and there is not, or makes no sense.
 * @param predicate whose subject is the instruction
 */
export function refuse(line: number, instruction: string, predicate: string): WrennError {
  return refusal(line, instruction, `${instruction} ${predicate}`)
}

/** The same with a sentence that has a subject of its own. */
export function refuseSince(line: number, instruction: string, sentence: string): WrennError {
  return refusal(line, instruction, `${instruction}: ${sentence}`)
}

/** What was refused; `undefined` for what is no refusal. */
export function refusalOf(error: unknown) {
  if (!(error instanceof WrennError) || error.code !== 'invalid_request') return undefined
  const { line, instruction } = error.details ?? {}
  if (typeof line !== 'number' || typeof instruction !== 'string') return undefined
  return { line, instruction, message: error.message }
}

function refusal(line: number, instruction: string, text: string): WrennError {
  return createError(`Line ${line}: ${text}.`, {
    code: 'invalid_request',
    hint: 'docs/dockerfiles.md says what of Dockerfiles is understood.',
    details: { line, instruction },
  })
}
