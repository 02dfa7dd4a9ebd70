import type { Db } from './database.js'

interface SeenHost {
  readonly id: string
  readonly address: string
  readonly agentVersion: string
  readonly engine: string
}

/** Adds a host, or notes that it was seen now and what it has become. */
export async function recordHost(db: Db, host: SeenHost): Promise<void> {
  const seen = {
    address: host.address,
    agent_version: host.agentVersion,
    engine: host.engine,
    last_seen_at: new Date(),
  }
  await db
    .insertInto('hosts')
    .values({ id: host.id, ...seen })
    .onConflict((conflict) => conflict.column('id').doUpdateSet(seen))
    .execute()
}
