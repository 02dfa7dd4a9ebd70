import { createHash } from 'node:crypto'
import { mkdir, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AppError, type Logger, noSteps, stepsFromFile } from '@wrenn/base'
import { chooseEngine, type EngineChoice, type RecalledEngine, recallEngine } from '@wrenn/vmm'
import type {
  FetchedTemplate,
  ImageFileWish,
  ImageStore,
  ImageWish,
  Machine,
  OfferedTemplate,
  PackWish,
  TemplateImage,
} from './capsule/machine.js'
import type { HostAgentConfig } from './config.js'
import { createCgroups } from './host/cgroups/index.js'
import type { HostProgram } from './host/doctor/index.js'
import { syncData } from './host/durability/index.js'
import { poolExtents } from './host/extents/index.js'
import { requireCertificates } from './host/filter/index.js'
import {
  type BaseImage,
  type BootAssets,
  type BootOptions,
  blankDisk,
  ensureBootAssets,
  ensureImage,
  type FetchedImage,
  FetchedImages,
  type ImageUses,
  isFetchedName,
  listImages,
  offeredImages,
  pruneLayers,
  RegistryRules,
} from './host/images/index.js'
import { Loaders } from './host/loader/index.js'
import { createNetwork, type SlotUse } from './host/network/index.js'
import { closePool, openPool } from './host/pool/index.js'
import { requireSearchable } from './host/searchable.js'
import { sweepVms } from './host/sweep.js'

/** Capsules' uids start here above the configured base; the platform's own processes are below. */
export const CAPSULE_UID_OFFSET = 100
/** Of the egress filter, below them. */
const FILTER_UID_OFFSET = 3
/** Of what asks registries, below them too. */
const FETCHER_UID_OFFSET = 4
/** Of the egress filter's cgroup, which is no VM's. */
const FILTER_GROUP = 'egress-filter'
/** Its connections' buffers, in the kernel too, are nearly all of it. */
const FILTER_MEMORY_MIB = 640
const BUILT_IN_TEMPLATE = 'minimal'
/** Of a capsule whose image does not say. */
const DEFAULT_SIZE = { vcpus: 1, memoryMib: 512 }

/** The machine, brought up. What is on the host outlives it unless `release` is called. */
export interface OpenMachine extends Machine {
  readonly memory: Loaders
  /** A sentence: why it is this engine. */
  readonly engineReason: string
  /** Removes every process, cgroup, directory and file of VMs that are not in `keep`: VM id → the process a record knows. */
  sweep(keep: ReadonlyMap<string, number | undefined>): Promise<void>
  /** Removes images, kernels and agent drives that neither a name nor `layers` means any more. */
  pruneLayers(layers: () => ReadonlySet<string>): Promise<void>
  /** Says who boots from fetched images: those that nobody does make way where the room is short. */
  attachImageUses(uses: ImageUses): void
  /** Removes fetched images that nothing boots from and nobody has used for long. @returns their templates */
  pruneFetched(layers: () => ReadonlySet<string>): Promise<readonly string[]>
  /** Stops what serves this process; capsules, namespaces and mounts stay. */
  close(): Promise<void>
  /** Also removes namespaces and unmounts the pool: for a host without capsules. */
  release(): Promise<void>
}

/** How bringing it up is followed and given up. */
export interface OpenOptions {
  readonly logger: Logger
  readonly signal: AbortSignal
  /** Slots with a running guest: slot index → capsule id. */
  readonly inUse: ReadonlyMap<number, SlotUse>
  readonly onProgress: (sentence: string) => void
}

/** Where the manifests and boot scripts of the images are, beside the sources or the bundle. */
const imagesDir = fileURLToPath(new URL('../../../images', import.meta.url))
/** Plain JavaScript, because it also runs before anything is installed or built. */
const debianPackages = new URL('../../../scripts/debian-packages.mjs', import.meta.url)
/** Installed only where this machine's Node.js cannot run in a guest. */
const bundledNode = fileURLToPath(
  new URL(`../../guest-agent/runtime/node_modules/node-linux-${process.arch}/bin/node`, import.meta.url),
)
const egressFilter = fileURLToPath(new URL('../dist/egress-filter.mjs', import.meta.url))
const memoryLoader = fileURLToPath(new URL('../dist/memory-loader.mjs', import.meta.url))
const imageFetcher = fileURLToPath(new URL('../dist/image-fetcher.mjs', import.meta.url))
const guestAgentDir = fileURLToPath(new URL('../../guest-agent/dist', import.meta.url))

/**
 * Where images are built from and to: caches in the platform's directory, manifests and the guest agent beside this program.
 */
export function imageOptions(config: HostAgentConfig, logger: Logger, signal?: AbortSignal): BootOptions {
  const agentDir = config.guestAgentDir ?? guestAgentDir
  return {
    poolDir: join(config.dir, 'pool'),
    aptDir: join(config.dir, 'apt'),
    imagesDir,
    logger,
    ...(signal ? { signal } : {}),
    agent: {
      bundlePath: join(agentDir, 'agent.mjs'),
      ptyAddonPath: join(agentDir, 'pty.node'),
      interpreterPath: join(agentDir, 'interpreter.mjs'),
      node: { bundled: bundledNode },
    },
  }
}

/** Brings the whole machine up: pool, images, engine, network, cgroups, DNS. */
export async function openMachine(config: HostAgentConfig, options: OpenOptions): Promise<OpenMachine> {
  const { logger, signal, onProgress } = options
  if (config.egressCaPath !== undefined) await requireCertificates(config.egressCaPath)
  const network = createNetwork({
    config: {
      prefix: config.instance,
      cidr: config.networkCidr,
      uidBase: config.uidBase + CAPSULE_UID_OFFSET,
      callerUid: config.socketUid,
      poolSize: config.slotPool,
      platform: config.dir,
      resolvConfPath: config.resolvConfPath,
      filter: {
        command: ['--max-old-space-size=256', '--max-semi-space-size=1', egressFilter],
        uid: config.uidBase + FILTER_UID_OFFSET,
        caPath: config.egressCaPath,
        runDir: join(config.dir, 'run', FILTER_GROUP),
        cgroups: async () =>
          (await cgroups.create(FILTER_GROUP, { memoryMib: FILTER_MEMORY_MIB, vcpus: 1 })).directories,
      },
    },
    logger,
  })
  await requireSearchable(config.dir)
  onProgress('Opening the storage pool.')
  const pool = await openPool({
    dir: config.dir,
    logger,
    ...(config.poolSizeBytes === undefined ? {} : { sizeBytes: config.poolSizeBytes }),
  })
  const build = {
    ...imageOptions(config, logger, signal),
    onProgress: ({ step, detail }: { step: string; detail: string }) =>
      onProgress(`Preparing images, ${step}: ${detail}.`),
  }
  const boot = await ensureBootAssets(build)
  await ensureImage(BUILT_IN_TEMPLATE, build)
  onProgress('Choosing the engine by booting a tiny guest.')
  const fetched = new FetchedImages(fetchOptions(config, logger))
  await fetched.sweep()
  const verdict = await chooseHostEngine(config, boot, logger)
  onProgress('Preparing the network.')
  const cgroups = await createCgroups({ name: config.instance, logger })
  await network.start({ inUse: options.inUse })
  const runDir = join(config.dir, 'run', 'vm')
  await mkdir(runDir, { recursive: true, mode: 0o711 })
  const memory = new Loaders({ program: memoryLoader, poolPath: pool.path, logger })
  return {
    engine: verdict.engine,
    engineReason: verdict.reason,
    slots: network,
    cgroups: {
      create: async (id, limits) => (await cgroups.create(id, limits)).directories,
      remove: async (id) => await cgroups.remove(id),
    },
    pool: {
      path: pool.path,
      filesystem: pool.filesystem,
      clone: async (from, to, owner) => await pool.clone(from, to, owner),
      usage: async () => await pool.usage(),
      ensureSpace: async (bytes) => await pool.ensureSpace(bytes),
      sync: async (path) => await syncData(path),
      extents: async (paths) => await poolExtents(paths),
    },
    memory,
    images: new Templates(
      boot,
      { ...build, onProgress: (progress) => logger.info({ ...progress }, 'images.progress') },
      fetched,
    ),
    runDir,
    async sweep(keep) {
      const capsulesDir = join(pool.path, 'capsules')
      await memory.sweep((dir) => keep.has(relative(capsulesDir, dir).split('/')[0] ?? ''))
      await sweepVms({ runDir, filesDir: join(pool.path, 'capsules'), keep, logger })
      await cgroups.sweep(new Set([...keep.keys(), FILTER_GROUP]))
    },
    async pruneLayers(layers) {
      const removed = await pruneLayers({ ...build, inUse: (digest) => layers().has(digest) })
      if (removed.length > 0) logger.info({ removed }, 'images.pruned')
    },
    async pruneFetched(layers) {
      const removed = await fetched.prune((digest) => layers().has(digest))
      if (removed.length > 0) logger.info({ removed }, 'images.fetched_pruned')
      return removed
    },
    attachImageUses(uses) {
      fetched.attach(uses)
    },
    async close() {
      await network.stop()
    },
    async release() {
      await network.removeAll()
      await cgroups.removeAll()
      await closePool(config.dir)
    },
  }
}

function fetchOptions(config: HostAgentConfig, logger: Logger) {
  const { maxBytes, maxFiles, totalBytes, keepMs } = config.images
  return {
    poolDir: join(config.dir, 'pool'),
    logger,
    registry: {
      rules: new RegistryRules(config.registries),
      fetcher: [process.execPath, imageFetcher],
      uid: config.uidBase + FETCHER_UID_OFFSET,
    },
    limits: { maxBytes, maxFiles },
    totalBytes,
    keepMs,
    reach: config.stepFile === undefined ? noSteps : stepsFromFile(config.stepFile),
  } as const
}

function probeDir(config: HostAgentConfig): string {
  return join(config.dir, 'run', 'probe')
}

/** Test guests of one that was killed while it tried an engine. */
export async function sweepProbes(config: HostAgentConfig, logger: Logger): Promise<void> {
  const dir = probeDir(config)
  await sweepVms({ runDir: dir, filesDir: dir, keep: new Map(), logger })
}

/** The engine for this host boot. */
export async function chooseHostEngine(
  config: HostAgentConfig,
  kernel: Pick<BootAssets, 'kernelPath' | 'initrdPath'>,
  logger: Logger,
): Promise<EngineChoice> {
  const uid = config.uidBase + CAPSULE_UID_OFFSET
  const scratchDir = probeDir(config)
  await mkdir(scratchDir, { recursive: true, mode: 0o711 })
  await sweepProbes(config, logger)
  return await chooseEngine({
    override: config.engine,
    binary: config.qemu,
    kernel,
    scratchDir,
    cachePath: join(config.dir, 'engine.json'),
    uid,
    gid: uid,
    logger,
  })
}

/** What must be installed here. */
export async function loadHostPrograms(): Promise<readonly HostProgram[]> {
  const { hostPrograms }: { readonly hostPrograms: readonly HostProgram[] } = await import(debianPackages.href)
  return hostPrograms
}

/** What `chooseHostEngine` chose or will try first, for `wrenn doctor`: boots and writes nothing. */
export async function recallHostEngine(config: HostAgentConfig): Promise<RecalledEngine> {
  const { engine: override, qemu: binary } = config
  return await recallEngine({ override, binary, cachePath: join(config.dir, 'engine.json') })
}

/** Templates of this host: base images together with what boots them. */
class Templates implements ImageStore {
  readonly #boot: BootAssets
  readonly #options: BootOptions
  readonly #fetched: FetchedImages

  constructor(boot: BootAssets, options: BootOptions, fetched: FetchedImages) {
    this.#boot = boot
    this.#options = options
    this.#fetched = fetched
  }

  async template(name: string): Promise<TemplateImage> {
    if (!isFetchedName(name)) return this.#describe(await ensureImage(name, this.#options))
    const image = await this.#fetched.find(name)
    if (image === undefined)
      throw new AppError('template_not_found', `There is no image "${name}" on this host any more.`)
    return this.#describe(ofRegistry(image))
  }

  async list(): Promise<readonly TemplateImage[]> {
    const [built, fetched] = await Promise.all([listImages(this.#options.poolDir), this.#fetched.list()])
    return [...built, ...fetched.map(ofRegistry)].map((image) => this.#describe(image))
  }

  async fetch(wish: ImageWish): Promise<FetchedTemplate> {
    return toTemplate(await this.#fetched.fetch(wish))
  }

  async import(wish: ImageFileWish): Promise<FetchedTemplate> {
    const image = await this.#fetched.import(wish)
    return image.template === undefined ? toTemplate(image) : { ...toTemplate(image), archived: image.template }
  }

  async offered(): Promise<readonly OfferedTemplate[]> {
    const images = await offeredImages(this.#options)
    // Who takes the first one gets what is there from the start.
    const inOrder = [...images].sort(
      (a, b) => Number(b.name === BUILT_IN_TEMPLATE) - Number(a.name === BUILT_IN_TEMPLATE),
    )
    return inOrder.map(({ name, aliases, vcpus, memoryMib, built }) => ({
      name,
      aliases,
      sizeBytes: built?.sizeBytes ?? 0,
      createdAtMs: built?.createdAtMs ?? 0,
      defaultVcpus: vcpus ?? DEFAULT_SIZE.vcpus,
      defaultMemoryMib: memoryMib ?? DEFAULT_SIZE.memoryMib,
    }))
  }

  pack({ basePath, diskPath, signal, ...template }: PackWish): AsyncIterable<Uint8Array> {
    const { name, setup, vcpus, memoryMib, diskSizeMib, synced } = template
    const manifest = { name, vcpus, memoryMib, diskSizeMib, synced, setup: { ...setup, envs: { ...setup.envs } } }
    return this.#fetched.pack({ manifest, basePath, diskPath, signal })
  }

  async firstDisk(template: string, sizeMib: number): Promise<string> {
    const image = isFetchedName(template) ? await this.#fetched.find(template) : undefined
    if (image?.diskPath === undefined) return await blankDisk(this.#options.poolDir, sizeMib)
    if ((await stat(image.diskPath)).size === sizeMib * 2 ** 20) return image.diskPath
    throw new AppError('invalid_request', 'disk_size_mb must be that of the imported template.')
  }

  #describe(image: DescribedImage): TemplateImage {
    const boot = this.#boot
    const parts = [image.digest, boot.kernelDigest, boot.initrdDigest, boot.agentVersion, ...boot.kernelArgs]
    // Two templates may have the same base image, and each a disk of its own.
    if (image.hasDisk === true) parts.push(image.name)
    return {
      name: image.name,
      aliases: image.aliases,
      digest: createHash('sha256').update(parts.join('\n')).digest('hex'),
      basePath: image.path,
      agentPath: boot.agentDrivePath,
      kernel: { kernelPath: boot.kernelPath, initrdPath: boot.initrdPath, args: boot.kernelArgs },
      kernelVersion: boot.kernelVersion,
      layers: [image.digest, boot.agentVersion, boot.kernelDigest, boot.initrdDigest],
      sizeBytes: image.sizeBytes,
      createdAtMs: image.createdAtMs,
      ready: image.ready,
      ...(image.isFetched === true ? { isFetched: true } : {}),
    }
  }
}

function toTemplate({ name: template, manifest: digest, sizeBytes, config }: FetchedImage): FetchedTemplate {
  return { template, digest, sizeBytes, ...config }
}

interface DescribedImage extends Omit<BaseImage, 'packages'> {
  readonly isFetched?: boolean
  readonly hasDisk?: boolean
}

function ofRegistry({ name, path, sizeBytes, digest, createdAtMs, diskPath }: FetchedImage): DescribedImage {
  return { name, aliases: [], path, sizeBytes, digest, createdAtMs, isFetched: true, hasDisk: diskPath !== undefined }
}
