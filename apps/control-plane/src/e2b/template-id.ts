import { AppError } from '@wrenn/base'
import { safeNameSchema, text } from '@wrenn/protocol'

const DEFAULT_TAG = 'default'
const pattern = /^(?:[^/]*\/)?([^:/]+)(?::([^:/]+))?$/

/** A snapshot of this name as clients know it. */
export function toSnapshot(name: string) {
  const snapshotID = `${name}:${DEFAULT_TAG}`
  return { snapshotID, names: [snapshotID] }
}

/**
 * The name of a template or snapshot in what a client calls it: `base`, `base:default`, `my-team/base`. There is one namespace, the team's.
 * @throws AppError `template_not_found` for another tag than `default`
 */
export function templateNameOf(id: string): string {
  const [, name = '', tag = DEFAULT_TAG] = pattern.exec(id) ?? []
  if (name !== '' && tag === DEFAULT_TAG) return name
  throw new AppError('template_not_found', `There is no template "${id.slice(0, 200)}".`)
}

/** The name of a new snapshot, in any of these forms; there are no other tags than `default`. */
export const snapshotNameSchema = text(200, 1)
  .refine((id) => (pattern.exec(id)?.[2] ?? DEFAULT_TAG) === DEFAULT_TAG, { message: 'has a tag other than default' })
  .transform((id) => pattern.exec(id)?.[1] ?? id)
  .pipe(safeNameSchema)
