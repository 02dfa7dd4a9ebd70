import { type Kysely, sql } from 'kysely'

const triggers = [
  { name: 'event_made', when: ['INSERT', 'true'], type: 'build.created' },
  { name: 'event_moved', when: ['UPDATE', 'OLD.state <> NEW.state'], type: 'build.state' },
  {
    name: 'event_changed',
    when: [
      'UPDATE',
      'OLD.state = NEW.state AND (OLD.steps, OLD.cached_steps, OLD.tags) IS DISTINCT FROM (NEW.steps, NEW.cached_steps, NEW.tags)',
    ],
    type: 'build.updated',
  },
  { name: 'event_removed', when: ['DELETE', 'true'], type: 'build.removed' },
] as const

/** Builds of templates are told of as capsules are; what they say has a stream of its own. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const { name, when, type } of triggers) {
    const [operation, condition] = when
    await sql
      .raw(
        `CREATE TRIGGER ${name} AFTER ${operation} ON template_builds FOR EACH ROW WHEN (${condition}) EXECUTE FUNCTION team_event('${type}', 'id', 'name', 'state')`,
      )
      .execute(db)
  }
}

export async function down(db: Kysely<unknown>): Promise<void> {
  for (const { name } of triggers) await sql.raw(`DROP TRIGGER ${name} ON template_builds`).execute(db)
}
