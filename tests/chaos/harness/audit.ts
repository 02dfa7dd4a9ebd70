import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { engines, entries, listHost } from '../../e2e/harness/host.js'
import { eventually } from '../../e2e/harness/wait.js'
import type { HostAgent, JournalRecord } from './host-agent.js'
import { type Site, SLOT_POOL } from './site.js'

const SETTLE_TIMEOUT_MS = 20_000
const settledStates = ['running', 'paused', 'error']

export interface Findings {
  /** Capsules in a state that nobody works on any more. */
  readonly illegal: readonly string[]
  /** What no record owns, or a record owns and is not there. */
  readonly leaked: readonly string[]
}

/** Counts everything on the host against what the records own, once what is being given back is back. */
export async function audit(site: Site, agent: HostAgent): Promise<Findings> {
  let last: Findings = { illegal: [], leaked: [] }
  await eventually(
    'the host to settle',
    async () => {
      last = await look(site, agent)
      return last.illegal.length + last.leaked.length === 0 ? true : undefined
    },
    SETTLE_TIMEOUT_MS,
  ).catch(() => {}) // what is still wrong is the answer
  return last
}

async function look(site: Site, agent: HostAgent): Promise<Findings> {
  const { capsules } = await agent.client.listCapsules({})
  const records = await journal(site)
  const told = capsules.map(({ capsuleId, state }) => `${capsuleId} ${state}`)
  const written = records.map(({ capsuleId, state }) => `${capsuleId} ${state}`)
  return {
    illegal: [
      ...records.filter(({ state }) => !settledStates.includes(state)).map((r) => `${r.capsuleId} is ${r.state}`),
      ...difference('journal', 'told', written, told),
    ],
    leaked: [...(await machineFindings(site, records)), ...(await fileFindings(site, agent, records))],
  }
}

async function journal({ dir }: Site): Promise<JournalRecord[]> {
  const names = await entries(join(dir, 'journal'))
  return await Promise.all(
    names.map(async (name) => JSON.parse(await readFile(join(dir, 'journal', name), 'utf8').catch(() => '{}'))),
  )
}

/** Guests outside capsules wait in the hot pool or warm a shape; they are of the host, not of a capsule. */
const isOfHost = (name: string): boolean => name.startsWith('hot-') || name.startsWith('shape-')

async function machineFindings(site: Site, records: readonly JournalRecord[]): Promise<string[]> {
  const owned = records.flatMap(({ resources, other }) => [resources, other].flatMap((one) => one?.vmId ?? []))
  const running = records.filter(({ state }) => state === 'running').flatMap(({ resources }) => resources?.vmId ?? [])
  const host = await listHost(site)
  const not = (name: string): boolean => !isOfHost(name) || owned.includes(name)
  const living = (await engines(site.dir)).map(({ vmId }) => vmId)
  const slots = SLOT_POOL + living.length
  // Of a capsule that runs before its memory is whole.
  const isMemory = (target: string): boolean =>
    records.some(({ capsuleId }) => target.startsWith(join(site.dir, 'pool', 'capsules', capsuleId)))
  const mounts = host.mounts.filter((target) => !isMemory(target))
  return [
    ...difference('running', 'engines', running, living.filter(not)),
    ...difference('running', 'records with resources', running, owned),
    ...difference('running', 'cgroups', running, host.cgroups.filter(not)),
    ...difference('running', 'run directories', running, (await entries(join(site.dir, 'run', 'vm'))).filter(not)),
    ...(host.namespaces.length > slots ? [`${host.namespaces.length} namespaces, at most ${slots} wanted`] : []),
    ...(mounts.length > 1 ? [`mounts ${mounts.join(', ')}`] : []),
    ...(host.loops.length > 1 ? [`loops ${host.loops.join(', ')}`] : []),
  ]
}

async function fileFindings(site: Site, agent: HostAgent, records: readonly JournalRecord[]): Promise<string[]> {
  const pool = join(site.dir, 'pool')
  const names = (await entries(join(pool, 'capsules'))).filter((name) => !isOfHost(name))
  const found = difference(
    'records',
    'pool/capsules',
    records.map(({ capsuleId }) => capsuleId),
    names,
  )
  for (const { capsuleId, files, fallback } of records) {
    const dir = join(pool, 'capsules', capsuleId)
    const generations = (await entries(dir)).filter((name) => name !== 'checkpoints')
    const wanted = [files, ...(fallback === undefined ? [] : [fallback])].map(String)
    found.push(...difference(`generations of ${capsuleId}`, 'directories', wanted, generations))
    const { checkpoints } = await agent.client.listCheckpoints({ capsuleId })
    const told = checkpoints.map(({ checkpointId }) => checkpointId)
    found.push(...difference('checkpoints', 'directories', told, await entries(join(dir, 'checkpoints'))))
  }
  const { snapshots } = await agent.client.listSnapshots({})
  const told = snapshots.map(({ snapshotId }) => snapshotId)
  return [...found, ...difference('snapshots', 'directories', told, await entries(join(pool, 'snapshots')))]
}

/** What is in one of two lists only, or more than once in the second. */
function difference(
  wantedName: string,
  foundName: string,
  wanted: readonly string[],
  found: readonly string[],
): string[] {
  const count = (list: readonly string[], name: string): number => list.filter((one) => one === name).length
  return [...new Set([...wanted, ...found])]
    .filter((name) => count(wanted, name) !== count(found, name))
    .map((name) => `${name}: ${count(wanted, name)} × in ${wantedName}, ${count(found, name)} × in ${foundName}`)
}
