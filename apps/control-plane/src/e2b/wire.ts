import type { AppError } from '@wrenn/base'
import { errorKind } from '@wrenn/protocol'

/** First segments of all paths that clients made for E2B use; Wrenn's own are below `/v1`. */
const SEGMENTS: ReadonlySet<string> = new Set([
  'sandboxes',
  'snapshots',
  'templates',
  'teams',
  'volumes',
  'volumecontent',
  'secrets',
  'v2',
  'v3',
])

/** Whether a request target is one of theirs, so that its errors have the form that they read. */
export function isE2bTarget(target: string): boolean {
  return SEGMENTS.has(/^\/([^/?#]*)/.exec(target)?.[1] ?? '')
}

/** An error as they read it: many of their calls look at `code` and not at the status. */
export function e2bErrorBody(error: AppError): { readonly code: number; readonly message: string } {
  return { code: errorKind(error.code).status, message: error.message }
}

/** What their clients take an agent to be able to do; this one enables all that ours has. */
export const ENVD_VERSION = '0.6.13'

/** Once the second part of a sandbox's id; required in answers, and a constant since. */
export const CLIENT_ID = '00000000'

/** The end of what has none: the answers need one. */
const NEVER = '2100-01-01T00:00:00.000Z'

/** An end as answers have it. */
export function endText(endsAt: Date | null): string {
  return endsAt?.toISOString() ?? NEVER
}
