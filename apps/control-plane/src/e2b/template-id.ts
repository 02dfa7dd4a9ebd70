import { AppError } from '@wrenn/base'
import { safeNameSchema, text } from '@wrenn/protocol'
import { z } from 'zod'
import { DEFAULT_TAG } from '../store/snapshots.js'

const pattern = /^(?:[^/]*\/)?([^:/]+)(?::([^:/]+))?$/

/** A tag as clients write it. */
export const tagSchema = safeNameSchema

/** A template and one of its tags, which clients write as `name:tag`, or as the name alone for `default`. */
export interface TaggedName {
  readonly name: string
  readonly tag: string
}

/** A snapshot of this name as clients know it. */
export function toSnapshot(name: string) {
  const snapshotID = `${name}:${DEFAULT_TAG}`
  return { snapshotID, names: [snapshotID] }
}

/**
 * What capsules are created from, in what a client calls it: `base`, `base:default`, `my-team/base`, `web:v2`. There is one namespace, the
 * team's. @throws AppError `template_not_found` for any other form
 */
export function templateNameOf(id: string): string {
  const { name, tag } = taggedName(id)
  return tag === DEFAULT_TAG ? name : `${name}:${tag}`
}

/** The same in its two parts. @throws AppError `template_not_found` */
export function taggedName(id: string): TaggedName {
  const [, name = '', tag = DEFAULT_TAG] = pattern.exec(id) ?? []
  if (name !== '') return { name, tag }
  throw new AppError('template_not_found', `There is no template "${id.slice(0, 200)}".`)
}

/** The name of a template to build, in any of these forms. */
export const taggedNameSchema = text(200, 1).transform((id, context): TaggedName => {
  const [, name, tag = DEFAULT_TAG] = pattern.exec(id) ?? []
  const parsed = z.object({ name: safeNameSchema, tag: tagSchema }).safeParse({ name: name ?? id, tag })
  if (parsed.success) return parsed.data
  context.issues.push({ code: 'custom', message: parsed.error.issues[0]?.message ?? '', input: id })
  return z.NEVER
})

/** The name of a new snapshot; it has the tag `default`, and gets others later. */
export const snapshotNameSchema = taggedNameSchema
  .refine(({ tag }) => tag === DEFAULT_TAG, { message: 'has a tag other than default' })
  .transform(({ name }) => name)
