import { AppError, isErrno } from '@wrenn/base'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import type { Actor, SnapshotRow } from '../../store/schema.js'
import { DEFAULT_TAG, findSnapshotByName, lockSnapshot, patchSnapshot } from '../../store/snapshots.js'
import { dropTags, listTags, putTags } from '../../store/template-tags.js'
import { lockTeam } from '../../store/usage.js'

/** Of PostgreSQL, for a name that somebody has by then. */
export const UNIQUE_VIOLATION = '23505'

/** Of one template, beside `default`. */
export const MAX_TEMPLATE_TAGS = 100

interface Owner {
  readonly teamId: string
  /** Of the template. */
  readonly name: string
}

/** A name of one build of a template. */
export interface TemplateTag {
  readonly tag: string
  /** The build that made it; of a snapshot, its id. */
  readonly buildId: string
  /** When the tag was given. */
  readonly createdAt: Date
}

/** Names for builds of a team's templates, by which older ones are kept and newer ones are tried. */
export class TemplateTags {
  readonly #db: Db

  constructor(db: Db) {
    this.#db = db
  }

  /** All tags of a template, `default` first. @throws AppError `template_not_found` */
  async list(owner: Owner): Promise<readonly TemplateTag[]> {
    const own = await need(this.#db, owner.teamId, owner.name)
    const others = await listTags(this.#db, owner.teamId, owner.name)
    const tagged = others.map(({ tag, buildId, snapshotId, createdAt }) => ({
      tag,
      buildId: buildId ?? snapshotId,
      createdAt,
    }))
    return [{ tag: DEFAULT_TAG, buildId: buildIdOf(own), createdAt: own.created_at }, ...tagged]
  }

  /**
   * Has `asked` stand for what `source`, a tag of the template, stands for; `default` among them makes that what the name alone stands for.
   * @returns the build. @throws AppError `template_not_found`, `limit_exceeded`, `template_name_taken`, `conflict`
   */
  async assign(owner: Owner, source: string, asked: readonly string[], actor: Actor): Promise<string> {
    const { teamId, name } = owner
    const tags = [...new Set(asked)]
    try {
      return await this.#db.transaction().execute(async (tx) => {
        await lockTeam(tx, teamId)
        const found = await need(tx, teamId, source === DEFAULT_TAG ? name : `${name}:${source}`)
        const target = await lockSnapshot(tx, found.id)
        if (target?.state !== 'ready') throw notFound(name)
        await assignNames(tx, owner, target, tags)
        const buildId = buildIdOf(target)
        await record(tx, owner, actor, 'template.tag', { tags: tags.join(','), build_id: buildId })
        return buildId
      })
    } catch (error) {
      if (!isErrno(error, UNIQUE_VIOLATION)) throw error
      throw new AppError('conflict', `A build of ${name} has become ready at the same moment; try again.`)
    }
  }

  /** Takes tags away; those that are not there do not matter. @throws AppError `template_not_found`, `invalid_request` for `default` */
  async remove(owner: Owner, tags: readonly string[], actor: Actor): Promise<void> {
    if (tags.includes(DEFAULT_TAG)) {
      const next = 'give it to another build, or delete the template'
      throw new AppError('invalid_request', `tags: ${DEFAULT_TAG} is what the name alone stands for; ${next}.`)
    }
    await this.#db.transaction().execute(async (tx) => {
      await need(tx, owner.teamId, owner.name)
      const gone = await dropTags(tx, owner.teamId, owner.name, tags)
      if (gone.length > 0) await record(tx, owner, actor, 'template.untag', { tags: gone.join(',') })
    })
  }
}

/**
 * Gives a snapshot the names of a build that is ready. What the name alone stood for stays for as long as a tag stands for it. The first
 * one of a template is its `default`, whatever else it is called. The team is locked, or the build.
 * @throws AppError `limit_exceeded`, `template_name_taken` for a snapshot that no build has made
 */
export async function assignNames(tx: Db, owner: Owner, target: SnapshotRow, tags: readonly string[]): Promise<void> {
  const { teamId, name } = owner
  const found = await findSnapshotByName(tx, teamId, name)
  if (found === undefined || tags.includes(DEFAULT_TAG) || tags.length === 0) {
    if (found !== undefined && found.id !== target.id) await giveWay(tx, name, found)
    if (found?.id !== target.id) await patchSnapshot(tx, target.id, { name, hidden: false })
  }
  await putTags(
    tx,
    { teamId, name, snapshotId: target.id },
    tags.filter((tag) => tag !== DEFAULT_TAG),
  )
  const count = (await listTags(tx, teamId, name)).length
  if (count <= MAX_TEMPLATE_TAGS) return
  throw new AppError(
    'limit_exceeded',
    `${name} would have ${count} tags, and may have ${MAX_TEMPLATE_TAGS}; remove some.`,
  )
}

/** What had the name was built before, and goes once nothing starts from it and no tag stands for it. */
async function giveWay(tx: Db, name: string, { id }: SnapshotRow): Promise<void> {
  const before = await lockSnapshot(tx, id)
  if (before === undefined || before.deleted_at !== null) return
  if (before.build_id === null || before.state !== 'ready') throw nameTaken(name)
  await patchSnapshot(tx, before.id, { name: before.id, hidden: true })
}

/** A name that a build cannot have. */
export function nameTaken(name: string): AppError {
  return new AppError('template_name_taken', `There is a snapshot ${name}, which no build has made.`)
}

async function need(db: Db, teamId: string, name: string): Promise<SnapshotRow> {
  const found = await findSnapshotByName(db, teamId, name)
  if (found?.state === 'ready') return found
  throw notFound(name)
}

function notFound(name: string): AppError {
  return new AppError('template_not_found', `There is no template "${name}" of this team.`)
}

function buildIdOf({ id, build_id: buildId }: SnapshotRow): string {
  return buildId ?? id
}

async function record(
  tx: Db,
  { teamId, name }: Owner,
  actor: Actor,
  action: string,
  details: Record<string, string>,
): Promise<void> {
  await writeAudit(tx, { teamId, actor, action, resource: { type: 'template', id: name }, details })
}
