import { join } from 'node:path'
import { text as textOf } from 'node:stream/consumers'
import { parseArgs } from 'node:util'
import { AppError, errorText, isErrno, type Logger, removeEntries } from '@wrenn/base'
import type { RecalledEngine } from '@wrenn/vmm'
import { layersOfRecords } from './capsule/journal.js'
import { layersOfStates } from './capsule/state/index.js'
import { collectGarbage } from './commands/gc.js'
import type { HostAgentConfig } from './config.js'
import { createCgroups } from './host/cgroups/index.js'
import { examineHost } from './host/doctor/index.js'
import {
  type BootOptions,
  buildImage,
  listImages,
  type Progress,
  readKernelChoice,
  readNodeChoice,
  removeImage,
} from './host/images/index.js'
import { Loaders } from './host/loader/index.js'
import { createNetwork, ENDED_TRAFFIC } from './host/network/index.js'
import { closePool, openPool, withOpenPool } from './host/pool/index.js'
import { sweepVms } from './host/sweep.js'
import { HOST_ID_FILE } from './identity/host-id.js'
import { IDENTITY_FILE, JOINING_FILE } from './identity/identity-file.js'
import { joinPlatform } from './identity/join.js'
import { CAPSULE_UID_OFFSET, imageOptions, loadHostPrograms, recallHostEngine, sweepProbes } from './machine.js'

/** What the host agent keeps below the platform's directory; `clean` removes these and nothing else. */
const OWN_ENTRIES = [
  'apt',
  'pool',
  'pool.img',
  'pool.lock',
  'journal',
  'run',
  'engine.json',
  HOST_ID_FILE,
  ENDED_TRAFFIC,
  IDENTITY_FILE,
  JOINING_FILE,
]

/** Runs one of the agent's subcommands; answers as JSON lines on stdout. Returns the exit code. */
export async function runCommandLine(
  command: string,
  args: readonly string[],
  config: HostAgentConfig,
  logger: Logger,
): Promise<number> {
  try {
    await dispatch(command, args, config, logger)
    return 0
  } catch (error) {
    const known = AppError.from(error)
    print({ type: 'error', code: known.code, message: known.code === 'internal' ? errorText(error) : known.message })
    return 1
  }
}

async function dispatch(
  command: string,
  args: readonly string[],
  config: HostAgentConfig,
  logger: Logger,
): Promise<void> {
  switch (command) {
    case 'doctor':
      return await doctor(config)
    case 'image':
      return await image(args, config, logger)
    case 'clean':
      return await clean(config, logger)
    case 'gc':
      return await gc(args, config)
    case 'join':
      return await joinHost(args, config)
    default:
      throw new AppError(
        'invalid_request',
        `Unknown command "${command}": use serve, doctor, image, gc, join or clean.`,
      )
  }
}

/** Changes nothing: the pool may be unmounted, and what is written below its mount point would be hidden by the next start. */
async function doctor(config: HostAgentConfig): Promise<void> {
  const recalled = await recalledEngine(config)
  const engine = 'unreadable' in recalled ? undefined : recalled
  const report = await examineHost({
    dir: config.dir,
    qemu: config.qemu,
    network: { prefix: config.instance, cidr: config.networkCidr, resolvConfPath: config.resolvConfPath },
    guestKernel: async () => await readKernelChoice(join(config.dir, 'pool')),
    guestNode: async () => await readNodeChoice(join(config.dir, 'pool')),
    programs: await loadHostPrograms(),
    objectStore: config.objectStore,
    objectStoreBytesPerSec: config.objectStoreBytesPerSec,
    lazyResume: config.lazyResume,
    ...(engine === undefined ? {} : { engine: { ...engine, obstacle: obstacleOf(engine) } }),
    ...('unreadable' in recalled ? { engineUnreadable: recalled.unreadable } : {}),
  })
  print({ type: 'result', ...report, candidates: engine?.candidates ?? [] })
}

/** Who is not root may not see the verdict of the last start. */
async function recalledEngine(config: HostAgentConfig): Promise<RecalledEngine | { readonly unreadable: string }> {
  try {
    return await recallHostEngine(config)
  } catch (error) {
    if (isErrno(error, 'EACCES', 'EPERM')) return { unreadable: errorText(error) }
    throw error
  }
}

function obstacleOf({ name, candidates }: RecalledEngine): string | undefined {
  const [best] = candidates
  return best === undefined || best.name === name ? undefined : best.reason
}

async function gc(args: readonly string[], config: HostAgentConfig): Promise<void> {
  const { values } = parseArgs({ args: [...args], options: { 'dry-run': { type: 'boolean', default: false } } })
  print({ type: 'result', ...(await collectGarbage(config.socketPath, values['dry-run'])) })
}

/** The token is what is on the standard input: arguments can be read by everybody on the machine. */
async function joinHost(args: readonly string[], { dir }: HostAgentConfig): Promise<void> {
  const text = { type: 'string' } as const
  const options = { address: text, listen: text, ca: text }
  const { values, positionals } = parseArgs({ args: [...args], allowPositionals: true, options })
  const [url = ''] = positionals
  const { address, listen, ca: caFile } = values
  const token = (await textOf(process.stdin)).trim()
  const joined = await joinPlatform({ dir, url, token, address, listen, caFile })
  print({ type: 'result', hostId: joined.hostId, address: joined.address, listen: joined.listen, url: joined.url })
}

async function image(args: readonly string[], config: HostAgentConfig, logger: Logger): Promise<void> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { rebuild: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } },
  })
  const [action, name] = positionals
  const pool = {
    dir: config.dir,
    logger,
    ...(config.poolSizeBytes === undefined ? {} : { sizeBytes: config.poolSizeBytes }),
  }
  const options = {
    ...imageOptions(config, logger),
    onProgress: (progress: Progress) => print({ type: 'progress', ...progress }),
  }
  if (action === 'ls') {
    const listed = await withOpenPool(pool, async () => ({
      images: await listImages(options.poolDir),
      kernel: await readKernelChoice(options.poolDir),
      node: await readNodeChoice(options.poolDir),
    }))
    return print({ type: 'result', ...listed })
  }
  if (name === undefined || (action !== 'build' && action !== 'rm')) {
    throw new AppError('invalid_request', 'Use `image build <name> [--rebuild]`, `image ls` or `image rm <name>`.')
  }
  if (action === 'rm') {
    const existed = await withOpenPool(pool, () => removeUnused(name, config, options))
    return print({ type: 'result', removed: name, existed })
  }
  // Stays open: a build takes minutes, and a start of the platform meanwhile need not wait for it.
  await openPool(pool)
  print({ type: 'result', image: await buildImage(name, { ...options, rebuild: values.rebuild }) })
}

/** Files of the image that a capsule or a snapshot still boots from stay. */
async function removeUnused(name: string, config: HostAgentConfig, options: BootOptions): Promise<boolean> {
  const ofCapsules = await layersOfRecords(join(config.dir, 'journal'))
  const ofSnapshots = await layersOfStates(options.poolDir, 'snapshots')
  const isKnown = ofCapsules !== undefined && ofSnapshots !== undefined
  const used = new Set([...(ofCapsules ?? []), ...(ofSnapshots ?? [])])
  return await removeImage(name, { ...options, inUse: (digest) => !isKnown || used.has(digest) })
}

/** Removes all that the host agent of this directory has on the host: VMs, namespaces, cgroups, mounts, files. */
async function clean(config: HostAgentConfig, logger: Logger): Promise<void> {
  await sweepProbes(config, logger)
  const poolPath = join(config.dir, 'pool')
  await new Loaders({ program: '', poolPath, logger }).drop(poolPath)
  await sweepVms({
    runDir: join(config.dir, 'run', 'vm'),
    filesDir: join(config.dir, 'pool', 'capsules'),
    keep: new Map(),
    logger,
  })
  const uidBase = config.uidBase + CAPSULE_UID_OFFSET
  const network = createNetwork({
    config: { prefix: config.instance, cidr: config.networkCidr, uidBase, poolSize: 0, platform: config.dir },
    logger,
  })
  await network.removeAll()
  await (await createCgroups({ name: config.instance, logger })).removeAll()
  await closePool(config.dir)
  await removeEntries(config.dir, OWN_ENTRIES)
  print({ type: 'result', cleaned: config.dir })
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}
