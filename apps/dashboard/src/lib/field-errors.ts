import { WrennError } from '@wrenn/sdk'

/** What is wrong with what was typed, by field. */
export type FieldErrors<Name extends string = string> = Readonly<Partial<Record<Name, string>>>

/** Ends the submission of a form whose fields say themselves what is wrong with them. */
export class FieldsRefused extends Error {}

/** What the platform refuses of these fields of a request, in sentences; empty for what is not of them. */
export function fieldErrorsOf<Name extends string>(error: unknown, fields: readonly Name[]): FieldErrors<Name> {
  const issues: unknown =
    error instanceof WrennError && error.code === 'invalid_request' ? error.details?.issues : undefined
  const told = Array.isArray(issues) ? issues.filter(isIssue) : []
  const errors: Partial<Record<Name, string>> = {}
  for (const field of fields) {
    const issue = told.find((each) => each.field === field)
    if (issue !== undefined) errors[field] = sentenceOf(issue.message)
  }
  return errors
}

/** Ours are said of the field, as `must not contain a colon`; others are sentences. */
function sentenceOf(message: string): string {
  return (/^[a-z]/.test(message) ? `It ${message}` : message).replace(/\.?$/, '.')
}

/** `must not contain a colon` of `username`. */
interface Issue {
  readonly field: string
  readonly message: string
}

function isIssue(issue: unknown): issue is Issue {
  if (typeof issue !== 'object' || issue === null || !('field' in issue) || !('message' in issue)) return false
  return typeof issue.field === 'string' && typeof issue.message === 'string'
}
