import { createHash } from 'node:crypto'
import { copyFile, readdir, readFile, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { AppError } from '@wrenn/base'
import { z } from 'zod'
import { Apt } from './apt.js'
import { runCommand } from './command.js'
import { type CpioEntry, createCpio } from './cpio.js'
import { packagePath, type UnpackedPackage, unpackPackage } from './debian.js'
import { chooseKernel, type KernelChoice, kernelChoice } from './kernel-choice.js'
import { uncompressKernel } from './kernel-image.js'
import { loadOrder, moduleDependencies, moduleName } from './kernel-modules.js'
import { archiveModules } from './module-archive.js'
import type { ImageStoreOptions } from './progress.js'
import { LayerStore } from './store.js'
import { walk } from './walk.js'

/** The Debian release that kernel and tools of the boot come from, whatever the host runs and the image is. */
export const BOOT_SUITE = 'bookworm'

/** What the guest needs; what a kernel has built in is left out, and dependencies come along. */
const REQUIRED_MODULES = ['virtio_pci', 'virtio_blk', 'virtio_net', 'ext4', 'overlay']
/** `tcp_diag` is how a restored guest ends connections of before its save. */
const USEFUL_MODULES = ['virtio_balloon', 'virtio_rng', 'vmgenid', 'tcp_diag']
/** Loaded only on machines without a PCI bus (Firecracker). */
const MMIO_MODULE = 'virtio_mmio'

/** Raise when the way of building changes the result for equal inputs. */
const RECIPE = 6
const SPACE_NEEDED = 600 * 1_048_576

const APPLETS = [
  'cat',
  'chmod',
  'insmod',
  'ip',
  'mkdir',
  'mount',
  'poweroff',
  'rm',
  'sh',
  'sleep',
  'switch_root',
  'umount',
]

/** How kernel and initramfs are made. */
export interface KernelOptions extends ImageStoreOptions {
  /** Download kernel and busybox again. @default false */
  readonly rebuild?: boolean
  /**
   * `packaged` is Debian's bzImage, which the QEMU engine's restore relies on; `elf` is the kernel inside it, which Firecracker
   * requires. @default 'packaged'
   */
  readonly kernelFormat?: 'packaged' | 'elf'
}

const bootIndex = z.object({
  inputs: z.string(),
  kernelDigest: z.string(),
  initrdDigest: z.string(),
  busyboxDigest: z.string(),
  /** Archive of every module of the kernel, which the agent drive brings into the guest. */
  modulesDigest: z.string(),
  kernelVersion: z.string(),
  busyboxVersion: z.string(),
  kernel: kernelChoice,
})

/** Kernel, initramfs and the static busybox that both the initramfs and the agent drive use. */
export type KernelFiles = z.infer<typeof bootIndex>

const digestsOf = (entry: KernelFiles): readonly string[] => [
  entry.kernelDigest,
  entry.initrdDigest,
  entry.busyboxDigest,
  entry.modulesDigest,
]

/**
 * Unpacks kernel and busybox from their Debian packages and makes the initramfs, unless the store has them for this init. Where
 * the kernel was a second choice, each call looks whether the first one can be had by now.
 */
export async function ensureKernel(store: LayerStore, options: KernelOptions): Promise<KernelFiles> {
  const init = await readFile(join(options.imagesDir, 'boot', 'initramfs-init'))
  const format = options.kernelFormat ?? 'packaged'
  const inputs = createHash('sha256').update(`${RECIPE}\0${format}\0`).update(init).digest('hex')
  const current = async (): Promise<KernelFiles | undefined> => {
    const entry = await store.readIndex('boot', bootIndex, digestsOf)
    return entry?.inputs === inputs ? entry : undefined
  }
  const found = options.rebuild ? undefined : await current()
  if (found?.kernel.isPreferred) return found
  await using lease = await store.lease(options)
  const meanwhile = options.rebuild ? undefined : await current()
  if (meanwhile !== undefined && !(await canImprove(meanwhile.kernel, options))) return meanwhile
  await store.requireSpace(SPACE_NEEDED, 'the guest kernel')
  const entry = { inputs, ...(await build(store, lease.scratchDir, init, options)) }
  await store.writeIndex('boot', entry)
  options.logger.info({ kernelVersion: entry.kernelVersion, initrd: entry.initrdDigest }, 'images.kernel_built')
  return entry
}

/** A machine that is offline keeps what it has. */
async function canImprove(taken: KernelChoice, options: KernelOptions): Promise<boolean> {
  if (taken.isPreferred) return false
  try {
    if ((await chooseKernel(await Apt.open(BOOT_SUITE, options))).isPreferred) return true
  } catch (error) {
    if (!AppError.is(error, 'image_build_failed', 'timeout', 'invalid_config')) throw error
  }
  options.logger.warn(taken, 'images.kernel_second_choice')
  return false
}

/** Which kernel was taken and why; `undefined` before the first build. */
export async function readKernelChoice(
  poolDir: string,
): Promise<(KernelChoice & Pick<KernelFiles, 'kernelVersion'>) | undefined> {
  const entry = await new LayerStore(poolDir).readIndex('boot', bootIndex, digestsOf)
  return entry && { ...entry.kernel, kernelVersion: entry.kernelVersion }
}

async function build(
  store: LayerStore,
  scratchDir: string,
  init: Buffer,
  options: KernelOptions,
): Promise<Omit<KernelFiles, 'inputs'>> {
  const { signal, onProgress, logger } = options
  const apt = await Apt.open(BOOT_SUITE, options)
  const choice = await chooseKernel(apt)
  if (!choice.isPreferred) logger.warn(choice, 'images.kernel_second_choice')
  onProgress?.({ step: 'kernel', detail: `Downloading ${choice.package}`, fraction: 0 })
  const kernel = await unpackPackage(apt, choice.package, scratchDir, signal)
  onProgress?.({ step: 'initramfs', detail: 'Making the initramfs', fraction: 0.6 })
  const busybox = await unpackPackage(apt, 'busybox-static', scratchDir, signal)
  const kernelVersion = await versionOf(kernel)
  const busyboxPath = await packagePath(busybox, 'bin/busybox')
  const modulesFolder = await packagePath(kernel, `lib/modules/${kernelVersion}`)
  const initrd = join(scratchDir, 'initrd')
  await writeInitramfs(initrd, { init, busyboxPath, modules: await collectModules(modulesFolder, kernel, signal) })
  onProgress?.({ step: 'modules', detail: 'Packing the kernel modules', fraction: 0.8 })
  const modules = await archiveModules(apt, modulesFolder, scratchDir, signal)
  const image = join(scratchDir, 'kernel')
  const packaged = join(kernel.root, 'boot', `vmlinuz-${kernelVersion}`)
  if (options.kernelFormat === 'elf') await writeFile(image, await uncompressKernel(packaged, scratchDir, signal))
  else await copyFile(packaged, image)
  const tool = join(scratchDir, 'busybox')
  await copyFile(busyboxPath, tool)
  return {
    kernelDigest: (await store.adopt(image)).digest,
    initrdDigest: (await store.adopt(initrd)).digest,
    busyboxDigest: (await store.adopt(tool)).digest,
    modulesDigest: (await store.adopt(modules)).digest,
    kernelVersion,
    busyboxVersion: busybox.version,
    kernel: choice,
  }
}

async function versionOf(kernel: UnpackedPackage): Promise<string> {
  const image = (await readdir(join(kernel.root, 'boot'))).find((name) => name.startsWith('vmlinuz-'))
  if (image === undefined) throw new AppError('image_build_failed', `The package ${kernel.name} holds no kernel.`)
  return image.slice('vmlinuz-'.length)
}

interface Module {
  readonly name: string
  readonly content: Buffer
}

/** The decompressed modules in load order, the MMIO one apart. */
interface Modules {
  readonly ordered: readonly Module[]
  readonly mmio: Module | undefined
}

async function collectModules(
  folder: string,
  kernel: UnpackedPackage,
  signal: AbortSignal | undefined,
): Promise<Modules> {
  const files = await moduleFiles(folder)
  const builtIn = await builtInModules(folder)
  for (const name of REQUIRED_MODULES) {
    if (files.has(name) || builtIn.has(name)) continue
    throw new AppError('image_build_failed', `The kernel of ${kernel.name} has no ${name} driver.`)
  }
  const contents = new Map<string, Buffer>()
  // Dependencies are known only from the contents: read breadth-first, then order.
  const wanted = [...REQUIRED_MODULES, ...USEFUL_MODULES, MMIO_MODULE]
  for (const name of wanted) {
    const path = files.get(name)
    if (path === undefined || contents.has(name)) continue
    const content = await readModule(path, signal)
    contents.set(name, content)
    wanted.push(...moduleDependencies(content))
  }
  const dependenciesOf = (name: string): readonly string[] | undefined => {
    const content = contents.get(name)
    return content && moduleDependencies(content)
  }
  const pick = (name: string): readonly Module[] => {
    const content = contents.get(name)
    return content === undefined ? [] : [{ name, content }]
  }
  const order = loadOrder([...REQUIRED_MODULES, ...USEFUL_MODULES], dependenciesOf)
  return { ordered: order.flatMap(pick), mmio: pick(MMIO_MODULE)[0] }
}

async function moduleFiles(folder: string): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>()
  for await (const { path, entry } of walk(folder)) {
    const name = /^(.+)\.ko(\.xz|\.zst|\.gz)?$/.exec(entry.name)?.[1]
    if (name !== undefined) found.set(moduleName(name), path)
  }
  return found
}

async function builtInModules(folder: string): Promise<ReadonlySet<string>> {
  const text = await readFile(join(folder, 'modules.builtin'), 'utf8')
  return new Set(text.split('\n').map((path) => moduleName(basename(path, '.ko'))))
}

/** Uncompressed, so that the guest's slow CPU does not have to. */
async function readModule(path: string, signal: AbortSignal | undefined): Promise<Buffer> {
  if (path.endsWith('.xz')) return (await runCommand('xz', ['-dc', path], { signal, debianPackage: 'xz-utils' })).stdout
  if (path.endsWith('.zst')) return (await runCommand('zstd', ['-dc', path], { signal })).stdout
  if (path.endsWith('.gz')) return (await runCommand('gzip', ['-dc', path], { signal })).stdout
  return await readFile(path)
}

interface InitramfsParts {
  readonly init: Buffer
  readonly busyboxPath: string
  readonly modules: Modules
}

async function writeInitramfs(path: string, parts: InitramfsParts): Promise<void> {
  const { ordered, mmio } = parts.modules
  const folders = ['bin', 'dev', 'proc', 'sys', 'modules', 'base', 'agent', 'data', 'root']
  const entries: CpioEntry[] = [
    ...folders.map((name) => ({ kind: 'directory', name }) as const),
    { kind: 'device', name: 'dev/console', major: 5, minor: 1 },
    { kind: 'device', name: 'dev/null', major: 1, minor: 3 },
    { kind: 'file', name: 'init', content: parts.init, mode: 0o755 },
    { kind: 'file', name: 'bin/busybox', content: await readFile(parts.busyboxPath), mode: 0o755 },
    ...APPLETS.map((name) => ({ kind: 'symlink', name: `bin/${name}`, target: 'busybox' }) as const),
    ...[...ordered, ...(mmio ? [mmio] : [])].map(
      ({ name, content }) => ({ kind: 'file', name: `modules/${name}.ko`, content }) as const,
    ),
    { kind: 'file', name: 'modules/order', content: Buffer.from(ordered.map(({ name }) => `${name}\n`).join('')) },
  ]
  await writeFile(path, createCpio(entries))
}
