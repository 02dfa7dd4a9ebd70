import { capsuleIds, hostIds } from '@wrenn/base'
import type { Client } from 'pg'

/** A capsule as its host has it. */
export interface SeededCapsule {
  readonly id: string
  readonly state: 'running' | 'paused'
}

/** A host, and what is on it. */
export interface SeededHost {
  readonly id: string
  readonly capsules: readonly SeededCapsule[]
}

interface FleetSize {
  readonly teamId: string
  readonly hosts: number
  readonly perHost: number
}

/** Of ten capsules so many run; the others are paused, and one in fifty has ended. */
const RUNNING_OF_TEN = 4
const ENDED_EVERY = 50
const HOSTS_AT_ONCE = 200

/** Fills an empty database as if all of it had been made one by one; no triggers fire meanwhile. */
export async function seedFleet(
  plain: Client,
  { teamId, hosts: count, perHost }: FleetSize,
): Promise<readonly SeededHost[]> {
  const hosts = Array.from({ length: count }, () => hostIds.create())
  const seeded: SeededHost[] = []
  for (let at = 0; at < hosts.length; at += HOSTS_AT_ONCE) {
    const ids = hosts.slice(at, at + HOSTS_AT_ONCE)
    await plain.query('BEGIN; SET LOCAL session_replication_role = replica')
    await plain.query(
      `INSERT INTO hosts (id, address, agent_version, engine, cpus, memory_mib, pool_free, told_state)
        SELECT id, id || ':7443', '0.1.0', 'fake', 32, 131072, 0.5 + random() / 3, 'up' FROM unnest($1::text[]) AS id`,
      [ids],
    )
    await plain.query(
      `INSERT INTO joined_hosts (id, address, arch, cpu_cores, memory_mib, disk_gib, joined_at, created_by, created_at, updated_at, tags)
        SELECT id, id || ':7443', 'x86_64', 32, 131072, 1000, now(), 'bench', now(), now(), '{}' FROM unnest($1::text[]) AS id`,
      [ids],
    )
    const rows = ids.flatMap((host) =>
      Array.from({ length: perHost }, (_, n) => ({ host, n, id: capsuleIds.create() })),
    )
    await plain.query(
      `INSERT INTO capsules (id, team_id, host_id, template, vcpus, memory_mib, disk_size_mib, labels, envs, state, desired_state, observed_state, engine,
          engine_version, kernel_version, agent_version, path, timings, guest_address, disk_bytes, paused_at)
        SELECT id, $1, host, 'minimal', 1, 512, 1024, '{}', '{}', state, state, state, 'fake', '1', '6.12', '0.1.0', 'hot', '[]', '10.0.0.1', 1048576,
          CASE WHEN state = 'paused' THEN now() END FROM unnest($2::text[], $3::text[], $4::text[]) AS r (id, host, state)`,
      [teamId, rows.map(({ id }) => id), rows.map(({ host }) => host), rows.map(({ n }) => stateOf(n))],
    )
    await plain.query('COMMIT')
    for (const host of ids) {
      const capsules = rows.flatMap(({ host: on, n, id }) => {
        const state = stateOf(n)
        return on === host && (state === 'running' || state === 'paused') ? [{ id, state } as const] : []
      })
      seeded.push({ id: host, capsules })
    }
  }
  await plain.query('VACUUM ANALYZE')
  return seeded
}

function stateOf(n: number): string {
  if (n % ENDED_EVERY === 1) return 'stopped'
  return n % 10 < RUNNING_OF_TEN ? 'running' : 'paused'
}
