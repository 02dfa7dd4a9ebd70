import { createHash } from 'node:crypto'
import {
  chmod,
  copyFile,
  lutimes,
  mkdir,
  readdir,
  readFile,
  realpath,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, processStarter } from '@wrenn/base'
import { z } from 'zod'
import { Apt } from './apt.js'
import { missingPackage, runCommand } from './command.js'
import { createCpio } from './cpio.js'
import { packagePath, unpackPackage } from './debian.js'
import { createLayer } from './ext4.js'
import {
  chooseNode,
  identityOfNodes,
  type NodeChoice,
  type NodeSources,
  nodeChoice,
  sharedLibraries,
} from './guest-node.js'
import { BOOT_SUITE, type KernelFiles } from './kernel.js'
import { kernelCaller } from './kernel-caller.js'
import { deviceNodes } from './kernel-modules.js'
import type { ImageStoreOptions } from './progress.js'
import { exists, type LayerFile, LayerStore } from './store.js'
import { walk } from './walk.js'

/** What the agent drive is made of, beside the tools of this machine. */
export interface AgentInputs {
  /** `apps/guest-agent/dist/agent.mjs` */
  readonly bundlePath: string
  /** `pty.node` of `@lydell/node-pty-linux-x64`. */
  readonly ptyAddonPath: string
  /** `apps/guest-agent/dist/interpreter.mjs`, which the images of code interpreters run. */
  readonly interpreterPath: string
  /** Where the Node.js of guests comes from. @default this machine's own alone */
  readonly node?: NodeSources
}

/** Dynamic tools that the agent, or what builds templates, runs through the bundled loader, so that any distribution's userland will do. */
const HOST_TOOLS = [
  { name: 'setpriv', debianPackage: 'util-linux' },
  { name: 'setsid', debianPackage: 'util-linux' },
  { name: 'date', debianPackage: 'coreutils' },
  { name: 'tar', debianPackage: 'tar' },
  { name: 'bash', debianPackage: 'bash' },
] as const
const ATTR_TOOLS = ['setfattr', 'getfattr'] as const
const TOOL_FOLDERS = ['/usr/bin', '/bin', '/usr/sbin', '/sbin']

const RECIPE = 7
const SPACE_NEEDED = 700 * 1_048_576
/** Times inside the drive say nothing; a fixed one keeps equal inputs equal. */
const EPOCH_SECONDS = 1_700_000_000

/** Drives of before it was noted have no `node`. */
const driveIndex = z.object({ inputs: z.string(), digest: z.string(), node: nodeChoice.optional() })
const digestsOf = (entry: z.infer<typeof driveIndex>): readonly string[] => [entry.digest]

/** Parts of the kernel's package that the drive carries. */
type KernelInputs = Pick<KernelFiles, 'busyboxDigest' | 'modulesDigest'>

/** Gives the agent drive for these inputs; only a change of an input makes a new one. */
export async function ensureAgentDrive(
  store: LayerStore,
  options: ImageStoreOptions & { readonly agent: AgentInputs },
  kernel: KernelInputs,
): Promise<Pick<LayerFile, 'digest' | 'path'>> {
  const inputs = await inputsDigest(options, kernel)
  const current = async (): Promise<Pick<LayerFile, 'digest' | 'path'> | undefined> => {
    const entry = await store.readIndex('agent-drive', driveIndex, digestsOf)
    return entry?.inputs === inputs ? { digest: entry.digest, path: store.layerPath(entry.digest) } : undefined
  }
  const found = await current()
  if (found !== undefined) return found
  await using lease = await store.lease(options)
  const meanwhile = await current()
  if (meanwhile !== undefined) return meanwhile
  await store.requireSpace(SPACE_NEEDED, 'the agent drive')
  options.onProgress?.({ step: 'agent-drive', detail: 'Making the agent drive' })
  const folder = join(lease.scratchDir, 'drive')
  const node = await chooseNode(options.agent.node ?? {}, lease.scratchDir, options.signal)
  if (!node.choice.isHosts) options.logger.info(node.choice, 'images.guest_node_bundled')
  await fillDrive(
    folder,
    lease.scratchDir,
    { busybox: store.layerPath(kernel.busyboxDigest), node: node.path },
    options,
  )
  await addModules(folder, store.layerPath(kernel.modulesDigest), options.signal)
  await setTimes(folder, EPOCH_SECONDS)
  const image = join(lease.scratchDir, 'agent.ext4')
  await createLayer(folder, image, { role: 'agent', epochSeconds: EPOCH_SECONDS, signal: options.signal })
  const drive = await store.adopt(image)
  await store.writeIndex('agent-drive', { inputs, digest: drive.digest, node: node.choice })
  options.logger.info({ digest: drive.digest, sizeBytes: drive.sizeBytes }, 'images.agent_drive_built')
  return drive
}

/** Which Node.js guests run, and why; `undefined` before the first build. */
export async function readNodeChoice(poolDir: string): Promise<NodeChoice | undefined> {
  return (await new LayerStore(poolDir).readIndex('agent-drive', driveIndex, digestsOf))?.node
}

/** Small inputs count by content, Node.js by identity. */
async function inputsDigest(
  options: ImageStoreOptions & { readonly agent: AgentInputs },
  { busyboxDigest, modulesDigest }: KernelInputs,
): Promise<string> {
  const { agent, imagesDir } = options
  const hash = createHash('sha256').update(`${RECIPE}\0${busyboxDigest}\0${modulesDigest}\0`)
  const scripts = ['agent-init', 'interpreter'].map((name) => join(imagesDir, 'boot', name))
  for (const path of [agent.bundlePath, agent.ptyAddonPath, agent.interpreterPath, ...scripts]) {
    hash.update(await readInput(path)).update('\0')
  }
  hash.update(await identityOfNodes(agent.node ?? {}))
  return hash.digest('hex')
}

async function readInput(path: string): Promise<Buffer> {
  if (await exists(path)) return await readFile(path)
  throw new AppError('invalid_config', `${path} does not exist; build the guest agent first: npm run build`)
}

async function fillDrive(
  drive: string,
  scratchDir: string,
  from: { readonly busybox: string; readonly node: string },
  options: ImageStoreOptions & { readonly agent: AgentInputs },
): Promise<void> {
  for (const folder of ['.', 'bin', 'lib', 'data', 'modules']) {
    await mkdir(join(drive, folder), { recursive: true })
    await chmod(join(drive, folder), 0o755) // whatever the umask is: programs of every user walk in
  }
  const put = async (from: string, to: string, mode: number): Promise<void> => {
    await copyFile(from, join(drive, to))
    await chmod(join(drive, to), mode)
  }
  await put(join(options.imagesDir, 'boot', 'agent-init'), 'init', 0o755)
  await put(options.agent.bundlePath, 'agent.mjs', 0o644)
  await put(options.agent.ptyAddonPath, 'pty.node', 0o755)
  await put(options.agent.interpreterPath, 'interpreter.mjs', 0o644)
  await put(join(options.imagesDir, 'boot', 'interpreter'), 'bin/interpreter', 0o755)
  await put(from.busybox, 'bin/busybox', 0o755)
  await symlink('busybox', join(drive, 'bin', 'modprobe'))
  for (const [name, program] of Object.entries({
    'kernel-caller': kernelCaller(),
    'process-starter': processStarter(),
  })) {
    if (program !== undefined) await writeFile(join(drive, 'bin', name), program, { mode: 0o755 })
  }
  const programs = [
    { name: 'node', path: from.node },
    ...(await Promise.all(HOST_TOOLS.map(({ name, debianPackage }) => hostTool(name, debianPackage)))),
    ...(await attrTools(scratchDir, options)),
  ]
  for (const { name, path } of programs) await put(path, `bin/${name}`, 0o755)
  const libraries = new Map<string, string>()
  for (const path of [...programs.map((program) => program.path), options.agent.ptyAddonPath]) {
    for (const [name, library] of await sharedLibraries(path, options.signal)) libraries.set(name, library)
  }
  for (const [name, path] of [...libraries].sort()) await put(await realpath(path), `lib/${name}`, 0o755)
}

/** `modules` becomes a layer of the capsule's root, so it has the paths of one. */
async function addModules(drive: string, archive: string, signal: AbortSignal | undefined): Promise<void> {
  const layer = join(drive, 'modules')
  await runCommand('tar', ['-xpf', archive, '-C', layer], { signal })
  const folder = join(layer, 'usr', 'lib', 'modules')
  const texts = await Promise.all(
    (await readdir(folder)).map((release) => readFile(join(folder, release, 'modules.devname'), 'utf8')),
  )
  await writeFile(join(drive, 'device-nodes.cpio'), createCpio(deviceNodes(texts.join('\n'))), { mode: 0o644 })
}

interface Program {
  readonly name: string
  readonly path: string
}

async function hostTool(name: string, debianPackage: string): Promise<Program> {
  for (const folder of TOOL_FOLDERS) {
    const path = join(folder, name)
    if (await exists(path)) return { name, path }
  }
  throw missingPackage(name, debianPackage)
}

/** The package `attr` is seldom installed; then it is unpacked for this drive alone. */
async function attrTools(scratchDir: string, options: ImageStoreOptions): Promise<readonly Program[]> {
  const installed = await Promise.all(ATTR_TOOLS.map((name) => exists(join('/usr/bin', name))))
  if (installed.every(Boolean)) return ATTR_TOOLS.map((name) => ({ name, path: join('/usr/bin', name) }))
  const attr = await unpackPackage(await Apt.open(BOOT_SUITE, options), 'attr', scratchDir, options.signal)
  return await Promise.all(ATTR_TOOLS.map(async (name) => ({ name, path: await packagePath(attr, `bin/${name}`) })))
}

/** Gives everything below `folder`, and itself, one modification time. */
async function setTimes(folder: string, seconds: number): Promise<void> {
  for await (const { path } of walk(folder)) {
    await lutimes(path, seconds, seconds)
  }
  await utimes(folder, seconds, seconds)
}
