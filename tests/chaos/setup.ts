import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort, rgwKind } from '@wrenn/testkit'
import type { TestProject } from 'vitest/node'
import { copyArtefacts } from '../e2e/harness/artefacts.js'
import { listHost } from '../e2e/harness/host.js'
import { plantImages } from '../e2e/harness/images.js'
import { claimScratch, removeLeftovers } from '../e2e/harness/leftovers.js'
import { startObjectStore } from '../e2e/harness/object-store.js'
import { takePlatformDown } from '../e2e/harness/platform.js'
import { countingTeardown } from '../e2e/harness/teardown.js'
import { HostAgent } from './harness/host-agent.js'
import { type Site, SLOT_POOL } from './harness/site.js'

/** Names and ranges: one for a directory that is made anew, one for a directory that is kept, so that both may be on a machine. */
const freshSite = { instance: 'wchaos', cidr: '10.234.0.0/16', uidBase: '740000' }
const keptSite = { instance: 'wchaosk', cidr: '10.231.0.0/16', uidBase: '700000' }
const POOL_SIZE_MIB = 16_384
const SCRATCH_PREFIX = 'wchaos-'

/**
 * One directory with images and a warm default shape; each test file runs the processes in it that it breaks.
 * WRENN_CHAOS_DIR names a directory that is kept, with its images, from run to run.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const kept = process.env.WRENN_CHAOS_DIR
  const names = kept === undefined ? freshSite : keptSite
  const scratch = await mkdtemp(`/var/tmp/${SCRATCH_PREFIX}`)
  await claimScratch(scratch)
  await chmod(scratch, 0o755)
  const dir = kept ?? join(scratch, 'd')
  await mkdir(dir, { recursive: true, mode: 0o755 })
  const site: Site = {
    instance: names.instance,
    dir,
    artefacts: join(scratch, 'b'),
    stepFile: join(scratch, 'step'),
    port: await freePort(),
    env: environment(dir, join(scratch, 'step'), names),
    ...(rgwKind.missing === undefined ? {} : { withoutStore: rgwKind.missing }),
  }
  const store = site.withoutStore === undefined ? await startObjectStore() : undefined
  Object.assign(site.env, store?.env)
  try {
    await copyArtefacts(site.artefacts)
    if (kept === undefined) {
      await removeLeftovers(SCRATCH_PREFIX, scratch, takePlatformDown(site))
      await refuseLeftovers(site)
    }
    const { WRENN_TEST_IMAGES: images } = process.env
    if (images !== undefined && kept === undefined) await plantImages(images, dir, POOL_SIZE_MIB)
    const agent = new HostAgent(site)
    await agent.start()
    await agent.signal('SIGUSR2')
  } catch (error) {
    await store?.server[Symbol.asyncDispose]()
    await rm(scratch, { recursive: true, force: true })
    throw error
  }
  project.provide('site', site)
  return countingTeardown(async () => {
    const { engines, namespaces, cgroups, mounts, processes } = await listHost(site)
    const left = [...engines, ...namespaces, ...cgroups, ...mounts, ...processes]
    await store?.server[Symbol.asyncDispose]()
    if (left.length > 0) throw new Error(`The suite left ${left.join(', ')}`)
    await rm(scratch, { recursive: true, force: true })
  })
}

function environment(dir: string, stepFile: string, names: typeof freshSite): Record<string, string> {
  const { PATH = '', HOME = '/root', LANG = 'C.UTF-8', WRENN_ENGINE } = process.env
  return {
    PATH,
    HOME,
    LANG,
    WRENN_DIR: dir,
    WRENN_INSTANCE: names.instance,
    WRENN_NETWORK_CIDR: names.cidr,
    WRENN_UID_BASE: names.uidBase,
    WRENN_SLOT_POOL: String(SLOT_POOL),
    WRENN_HOT_POOL_MAX: '0',
    WRENN_POOL_SIZE_MIB: String(POOL_SIZE_MIB),
    WRENN_LOG_LEVEL: 'debug',
    WRENN_STEP_FILE: stepFile,
    WRENN_MAX_RESTART_DELAY_MS: '500', // these tests kill on purpose, again and again
    ...(WRENN_ENGINE ? { WRENN_ENGINE } : {}),
  }
}

/** Another run on this machine has a host with the same names. */
async function refuseLeftovers(site: Site): Promise<void> {
  const { namespaces, links, tables, cgroups } = await listHost(site)
  const inTheWay = [...namespaces, ...links, ...tables, ...cgroups]
  if (inTheWay.length === 0) return
  throw new Error(`Another run has ${inTheWay.slice(0, 5).join(', ')}; see /var/tmp/wchaos-*.`)
}
