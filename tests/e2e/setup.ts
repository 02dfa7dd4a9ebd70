import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { Api } from './harness/api.js'
import { copyArtefacts } from './harness/artefacts.js'
import { capsuleTraces, entries, listHost } from './harness/host.js'
import { logTails, type Platform, up, withKey, wrenn } from './harness/platform.js'
import { eventually } from './harness/wait.js'

const INSTANCE = 'we2e'
const NETWORK_CIDR = '10.205.0.0/16'
const UID_BASE = '84000'
const nothing = {
  engines: [],
  namespaces: [],
  links: [],
  tables: [],
  mounts: [],
  loops: [],
  cgroups: [],
  processes: [],
}

/**
 * One platform for the whole suite, started as its owner would. WRENN_TEST_DIR names a directory that is kept, with its images,
 * from run to run; without it everything is made anew and removed to the last trace.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const kept = process.env.WRENN_TEST_DIR
  const scratch = await mkdtemp('/var/tmp/we2e-')
  await chmod(scratch, 0o755)
  const dir = kept ?? join(scratch, 'd')
  await mkdir(dir, { recursive: true, mode: 0o755 })
  const port = await freePort()
  const platform: Omit<Platform, 'apiKey'> = {
    url: `http://127.0.0.1:${port}`,
    port,
    dir,
    instance: INSTANCE,
    artefacts: join(scratch, 'b'),
    env: environment(dir, port),
    log: join(scratch, 'up.log'),
  }
  await copyArtefacts(platform.artefacts)
  // A run that was interrupted leaves its platform running.
  if (kept !== undefined) await stop(platform, true)
  else await refuseLeftovers(platform)
  try {
    await up(platform)
  } catch (error) {
    await stop(platform, kept !== undefined).catch(() => {}) // the first error says what went wrong
    await rm(scratch, { recursive: true, force: true })
    throw error
  }
  const running = await withKey(platform)
  if (kept !== undefined) await destroyAll(running)
  project.provide('platform', running)
  return async () => {
    try {
      await assertNoCapsuleLeft(running)
    } finally {
      await stop(running, kept !== undefined)
      await rm(scratch, { recursive: true, force: true })
    }
  }
}

function environment(dir: string, port: number): Record<string, string> {
  const { PATH = '', HOME = '/root', LANG = 'C.UTF-8', WRENN_ENGINE } = process.env
  return {
    PATH,
    HOME,
    LANG,
    TERM: 'xterm-256color',
    WRENN_DIR: dir,
    WRENN_INSTANCE: INSTANCE,
    WRENN_NETWORK_CIDR: NETWORK_CIDR,
    WRENN_UID_BASE: UID_BASE,
    WRENN_POOL_SIZE_MIB: '24576',
    WRENN_LOG_LEVEL: 'debug',
    WRENN_API_URL: `http://127.0.0.1:${port}`,
    ...(WRENN_ENGINE ? { WRENN_ENGINE } : {}),
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise<void>((resolve) => server.close(() => resolve()))
  if (address === null || typeof address === 'string') throw new Error('A TCP server has a port.')
  return address.port
}

/** A run that was killed leaves a platform behind whose names are the same as ours. */
async function refuseLeftovers(platform: Omit<Platform, 'apiKey'>): Promise<void> {
  const { namespaces, links, tables, cgroups } = await listHost(platform)
  const inTheWay = [...namespaces, ...links, ...tables, ...cgroups]
  if (inTheWay.length === 0) return
  throw new Error(
    `An earlier run left ${inTheWay.slice(0, 5).join(', ')}. For its directory run: WRENN_INSTANCE=${INSTANCE} ` +
      `WRENN_NETWORK_CIDR=${NETWORK_CIDR} WRENN_UID_BASE=${UID_BASE} wrenn down --dir <dir> --stop-capsules, then wrenn clean --yes.`,
  )
}

/** What an interrupted run left in a directory that is kept. */
async function destroyAll(platform: Platform): Promise<void> {
  const api = new Api(platform)
  for (const { id, state } of await api.list({ status: 'all', limit: '1000' })) {
    if (state !== 'stopped') await api.json('DELETE', `/v1/capsules/${id}`)
  }
}

/** Every test removes what it made: by the end only the hot pool lives. */
async function assertNoCapsuleLeft(platform: Platform): Promise<void> {
  const api = new Api(platform)
  const open = await api.list({ status: 'all', limit: '1000' })
  const left = open
    .filter(({ state }) => state !== 'stopped')
    .map(({ id, state, name }) => `${id} ${state} ${name ?? ''}`)
  if (left.length > 0) throw new Error(`Tests left capsules behind: ${left.join(', ')}`)
  const clean = await eventually('what belonged to capsules to be gone', async () => {
    const traces = await capsuleTraces(platform)
    return Object.values(traces).every((names) => names.length === 0) ? true : undefined
  }).catch(() => false)
  if (!clean) throw new Error(`Capsules left traces: ${JSON.stringify(await capsuleTraces(platform))}`)
}

async function stop(platform: Omit<Platform, 'apiKey'>, isKept: boolean): Promise<void> {
  await expectCode(platform, ['down', '--stop-capsules'])
  const traces = await capsuleTraces(platform)
  const stopped = { ...traces, processes: (await listHost(platform)).processes }
  if (Object.values(stopped).some((names) => names.length > 0)) {
    throw new Error(`\`wrenn down --stop-capsules\` left ${JSON.stringify(stopped)}`)
  }
  if (isKept) return
  await expectCode(platform, ['clean', '--yes'])
  const left = { ...(await listHost(platform)), files: await entries(platform.dir) }
  if (JSON.stringify(left) !== JSON.stringify({ ...nothing, files: [] })) {
    throw new Error(`\`wrenn clean\` left ${JSON.stringify(left)}`)
  }
}

async function expectCode(platform: Omit<Platform, 'apiKey'>, args: readonly string[]): Promise<void> {
  const { code, stderr } = await wrenn(platform, args)
  if (code === 0) return
  throw new Error(`wrenn ${args.join(' ')} ended with ${code}: ${stderr}\n${await logTails(platform)}`)
}
