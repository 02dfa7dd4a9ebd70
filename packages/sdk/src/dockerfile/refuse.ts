import { createError, type WrennError } from '../errors.js'

/** The error for what a Dockerfile asks for and there is not, or makes no sense. */
export function refuse(line: number, instruction: string, sentence: string): WrennError {
  return createError(`Line ${line}: ${instruction} ${sentence}.`, {
    code: 'invalid_request',
    hint: 'docs/dockerfiles.md says what of Dockerfiles is understood.',
    details: { line, instruction },
  })
}
