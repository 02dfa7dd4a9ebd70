import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { createAuthority } from '@wrenn/certificates'
import type { Template } from '@wrenn/protocol'
import { rgwKind } from '@wrenn/testkit'
import type { TestProject } from 'vitest/node'
import { Api } from './harness/api.js'
import { copyArtefacts } from './harness/artefacts.js'
import { capsuleTraces, entries, type HostListing, listHost } from './harness/host.js'
import { keepImages } from './harness/images.js'
import { claimScratch, removeLeftovers } from './harness/leftovers.js'
import { startObjectStore } from './harness/object-store.js'
import { lastSaidOf, logTails, type Platform, takePlatformDown, up, withKey, wrenn } from './harness/platform.js'
import { countingTeardown } from './harness/teardown.js'
import { eventually } from './harness/wait.js'

/** Names and ranges of this suite's platforms: one that is made anew, and one that is kept, so that both may be on a machine. */
const freshSite = { instance: 'we2e', cidr: '10.205.0.0/16', uidBase: '84000' }
const keptSite = { instance: 'we2ek', cidr: '10.206.0.0/16', uidBase: '86000' }
type Site = typeof freshSite
/** Below it, names of ports are served by TLS too. */
const TLS_DOMAIN = 'sbx.test'
/** Of a provider that is there for one file of tests alone. */
const PROVIDER_SECRET = 'not a secret'
const SCRATCH_PREFIX = 'we2e-'
/** Namespaces that wait for a guest. */
const SLOT_POOL = 4
/** Of each kind, in the message of a failure. */
const MAX_TOLD_NAMES = 3
const nothing = {
  engines: [],
  namespaces: [],
  links: [],
  tables: [],
  mounts: [],
  loops: [],
  cgroups: [],
  cgroupParents: [],
  processes: [],
}

/**
 * One platform for the whole suite, started as its owner would. WRENN_TEST_DIR names a directory that is kept, with its images,
 * from run to run; without it everything is made anew and removed to the last trace.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const kept = process.env.WRENN_TEST_DIR
  const site = kept === undefined ? freshSite : keptSite
  const scratch = await mkdtemp(`/var/tmp/${SCRATCH_PREFIX}`)
  await claimScratch(scratch)
  await chmod(scratch, 0o755)
  const dir = kept ?? join(scratch, 'd')
  await mkdir(dir, { recursive: true, mode: 0o755 })
  const [port, tlsPort, providerPort, collectorPort] = await freePorts()
  const resolvConf = join(scratch, 'resolv.conf')
  await copyFile('/etc/resolv.conf', resolvConf)
  const world = await createAuthority('sites of tests', undefined)
  const worldFile = join(scratch, 'world.pem')
  await writeFile(worldFile, world.cert)
  const platform: Omit<Platform, 'apiKey'> = {
    url: `http://127.0.0.1:${port}`,
    port,
    tls: { port: tlsPort, domain: TLS_DOMAIN, caFile: join(dir, 'tls', TLS_DOMAIN, 'ca.pem') },
    provider: { port: providerPort, clientSecret: PROVIDER_SECRET },
    collectorPort,
    dir,
    instance: site.instance,
    artefacts: join(scratch, 'b'),
    env: {
      ...environment(dir, port, site),
      WRENN_RESOLV_CONF: resolvConf,
      WRENN_EGRESS_CA_FILE: worldFile,
      WRENN_PROXY_DOMAIN: `localhost,${TLS_DOMAIN}`,
      WRENN_TLS_PORT: String(tlsPort),
      WRENN_CHANNEL_ALLOW: '127.0.0.1',
      // Of registries that tests start, at any port.
      WRENN_REGISTRIES_ALLOW: '127.0.0.2',
      WRENN_REGISTRIES_PLAIN: '127.0.0.2',
      WRENN_OIDC_PROVIDERS: 'acme',
      WRENN_OIDC_ACME_NAME: 'Acme Corp',
      WRENN_OIDC_ACME_ISSUER: `http://localhost:${providerPort}`,
      WRENN_OIDC_ACME_CLIENT_ID: 'wrenn',
      WRENN_OIDC_ACME_CLIENT_SECRET: PROVIDER_SECRET,
      // Spans are made for who asks for them, which one file of tests does.
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${collectorPort}`,
      OTEL_TRACES_SAMPLER: 'parentbased_always_off',
      OTEL_BSP_SCHEDULE_DELAY: '200',
    },
    world,
    log: join(scratch, 'up.log'),
  }
  const store = rgwKind.missing === undefined ? await startObjectStore() : undefined
  Object.assign(platform.env, store?.env)
  await copyArtefacts(platform.artefacts)
  // A run that was interrupted leaves its platform running.
  if (kept !== undefined) await stop(platform, true)
  else {
    await removeLeftovers(SCRATCH_PREFIX, scratch, takePlatformDown(platform))
    await refuseLeftovers(platform)
  }
  try {
    await up(platform)
    // This suite is the one that sees a platform make everything from nothing; the others spare themselves that.
    const { WRENN_TEST_IMAGES: images } = process.env
    if (images !== undefined && kept === undefined) await keepImages(dir, images)
  } catch (error) {
    await stop(platform, kept !== undefined).catch(() => {}) // the first error says what went wrong
    await store?.server[Symbol.asyncDispose]()
    await rm(scratch, { recursive: true, force: true })
    throw error
  }
  const running = await withKey(platform)
  if (kept !== undefined) await destroyAll(running)
  project.provide('platform', running)
  const base = fixtures(await listHost(running))
  return countingTeardown(async () => {
    try {
      await assertNoCapsuleLeft(running, base)
    } finally {
      await stop(running, kept !== undefined)
      await store?.server[Symbol.asyncDispose]()
      await rm(scratch, { recursive: true, force: true })
    }
  })
}

function environment(dir: string, port: number, site: Site): Record<string, string> {
  const { PATH = '', HOME = '/root', LANG = 'C.UTF-8', WRENN_ENGINE } = process.env
  return {
    PATH,
    HOME,
    LANG,
    TERM: 'xterm-256color',
    WRENN_DIR: dir,
    WRENN_INSTANCE: site.instance,
    WRENN_NETWORK_CIDR: site.cidr,
    WRENN_UID_BASE: site.uidBase,
    WRENN_SLOT_POOL: String(SLOT_POOL),
    WRENN_POOL_SIZE_MIB: '24576',
    WRENN_LOG_LEVEL: 'debug',
    WRENN_API_URL: `http://127.0.0.1:${port}`,
    ...(WRENN_ENGINE ? { WRENN_ENGINE } : {}),
  }
}

/** Four, taken at the same time so that they differ. */
async function freePorts(): Promise<readonly [number, number, number, number]> {
  const servers = [createServer(), createServer(), createServer(), createServer()] as const
  for (const server of servers) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const ports = [portOf(servers[0]), portOf(servers[1]), portOf(servers[2]), portOf(servers[3])] as const
  for (const server of servers) await new Promise<void>((resolve) => server.close(() => resolve()))
  return ports
}

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('A TCP server has a port.')
  return address.port
}

/** Another run on this machine has a platform with the same names. */
async function refuseLeftovers(platform: Omit<Platform, 'apiKey'>): Promise<void> {
  const { namespaces, links, tables, cgroups } = await listHost(platform)
  const inTheWay = [...namespaces, ...links, ...tables, ...cgroups]
  if (inTheWay.length === 0) return
  throw new Error(
    `Another run has ${inTheWay.slice(0, 5).join(', ')}. For its directory (/var/tmp/we2e-*/d) run \`wrenn down ` +
      `--stop-capsules\`, then \`wrenn clean --yes\`, with WRENN_INSTANCE=${freshSite.instance} ` +
      `WRENN_NETWORK_CIDR=${freshSite.cidr} WRENN_UID_BASE=${freshSite.uidBase}.`,
  )
}

/** What an interrupted run left in a directory that is kept. */
async function destroyAll(platform: Platform): Promise<void> {
  const api = new Api(platform)
  for (const { id, state } of await api.list({ status: 'all', limit: '1000' })) {
    if (state !== 'stopped') await api.json('DELETE', `/v1/capsules/${id}`)
  }
  for (const { name } of await api.json<Template[]>('GET', '/v1/snapshots', { query: { type: 'snapshot' } })) {
    await api.json('DELETE', `/v1/snapshots/${name}`)
  }
}

/** What a platform has whether or not there are capsules. Which loop device its pool got may have changed with a restart. */
function fixtures({ tables, mounts, loops }: HostListing): string {
  return JSON.stringify({ tables, mounts, loops: loops.map((line) => line.replace(/^\S+\s+/, '')) })
}

/** Every test removes what it made: by the end only the hot pool lives, in as many namespaces as it needs. */
async function assertNoCapsuleLeft(platform: Platform, base: string): Promise<void> {
  const open = await new Api(platform).list({ status: 'all', limit: '1000' })
  const left = open
    .filter(({ state }) => state !== 'stopped')
    .map(({ id, state, name }) => `${id} ${state} ${name ?? ''}`)
  if (left.length > 0) throw new Error(`Tests left capsules behind: ${left.join(', ')}`)
  let seen = ''
  let names: string[] = []
  const probe = async (): Promise<true | undefined> => {
    const traces = await capsuleTraces(platform)
    const host = await listHost(platform)
    names = Object.values(traces).flat()
    seen = Object.entries({ ...traces, namespaces: host.namespaces, now: [fixtures(host)] })
      .map(([kind, list]) => `${kind}: ${list.length} ${list.slice(0, MAX_TOLD_NAMES).join(', ')}`)
      .join('\n')
    // The egress filter's stays once it was needed.
    const slots = host.namespaces.filter((name) => name.startsWith(`${platform.instance}-`))
    const isWithin = slots.length <= SLOT_POOL + host.engines.length
    return names.length === 0 && isWithin && fixtures(host) === base ? true : undefined
  }
  try {
    await eventually(() => `what belonged to capsules to be gone, but ${base}; last seen:\n${seen}`, probe)
  } catch (error) {
    const said = await lastSaidOf(platform, names.slice(0, MAX_TOLD_NAMES))
    throw new Error(`${error instanceof Error ? error.message : String(error)}\nThe logs say:\n${said}`)
  }
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
