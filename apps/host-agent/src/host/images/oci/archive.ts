import { chmod, chown, lstat, mkdir, open, rm, symlink, writeFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { join } from 'node:path'
import { AppError, errorText } from '@wrenn/base'
import { type RunResult, runForResult } from '../../exec.js'
import { type ArchiveChoice, chooseImage } from './archive-choice.js'
import { MANIFEST_BYTES } from './manifest.js'
import { fatalOf } from './registry.js'
import { type Bind, sandboxed } from './sandbox.js'
import { type ImageLimits, lastWords, limitSaid, removeUnpacked, withinLimits } from './unpack.js'

const ASK_TIMEOUT_MS = 10 * 60_000
/** By SIGXFSZ, as shells have it. */
const ENDED_BY_SIZE = 128 + constants.signals.SIGXFSZ
const STDERR_BYTES = 64 * 1024
/** Where the file is in the sandbox. */
const ARCHIVE = '/opt/archive.tar'

/** How a file says that it is compressed, and what undoes it. */
const compressions = [
  { magic: Buffer.from('1f8b', 'hex'), command: ['gzip', '-dc'] },
  { magic: Buffer.from('28b52ffd', 'hex'), command: ['zstd', '-dcq'] },
  { magic: Buffer.from('fd377a585a00', 'hex'), command: ['xz', '-dcq'] },
] as const
const MAGIC_BYTES = 6

interface ArchiveOptions {
  /** What somebody gave, in a folder where whoever has this uid may walk. It is gone afterwards. */
  readonly file: string
  /** By what the image is called in it. */
  readonly wanted: string | undefined
  readonly architecture: string
  readonly scratchDir: string
  /** Whom tools run as; nobody else of this host. */
  readonly uid: number
  readonly limits: ImageLimits
  readonly signal: AbortSignal
  readonly timeoutMs: number
}

/** What an archive of a template holds. */
export const TEMPLATE_MEMBERS = ['wrenn-template.json', 'base.ext4', 'disk.raw'] as const

/**
 * Unpacks an archive of a template, holes kept, into a folder of its own: {@link TEMPLATE_MEMBERS}, plain files.
 * @param diskBytes the largest that its disk may seem
 * @throws AppError `image_not_usable`, `disk_full`
 */
export async function unpackTemplate(
  options: Omit<ArchiveOptions, 'wanted' | 'architecture'>,
  diskBytes: number,
): Promise<string> {
  return await new ArchiveTools(options).unpackTemplate(diskBytes)
}

/** Whether the file is compressed: then nobody knows how large it will be. */
export async function isCompressed(file: string): Promise<boolean> {
  return (await compressionOf(file)) !== undefined
}

/**
 * Makes an OCI layout, its image called `image`, of one image of a file. The file is opened by nobody but tools in sandboxes without a network, which see
 * the system's programs, it, and one folder of their own each.
 * @returns a folder with `layout`
 * @throws AppError `image_not_usable`, `image_not_found`, `disk_full`
 */
export async function layoutOfArchive(options: ArchiveOptions): Promise<string> {
  const tools = new ArchiveTools(options)
  const tar = await tools.uncompressed()
  const choice = chooseImage(
    { manifest: await tools.member(tar, 'manifest.json'), index: await tools.member(tar, 'index.json') },
    options.wanted,
    options.architecture,
  )
  return await tools.copy(tar, choice)
}

interface ToolWish {
  readonly folder?: string
  /** @default what an image may have */
  readonly fileBytes?: number
  readonly binds: readonly Bind[]
  readonly maxOutputBytes?: number
}

type ToolOptions = Omit<ArchiveOptions, 'wanted' | 'architecture'>

class ArchiveTools {
  readonly #options: ToolOptions

  constructor(options: ToolOptions) {
    this.#options = options
  }

  /** @returns a tar */
  async uncompressed(): Promise<string> {
    const { file } = this.#options
    const command = await compressionOf(file)
    if (command === undefined) return file
    const folder = await this.#folder('plain')
    const script = `exec "$@" < ${ARCHIVE} > /work/archive.tar`
    const binds = [{ from: file, to: ARCHIVE }]
    await this.#write(['sh', '-c', script, 'sh', ...command], { folder, binds })
    await rm(file)
    return await needFile(join(folder, 'archive.tar'))
  }

  /** A file at the top of the tar, as text; `undefined` when there is none. */
  async member(tar: string, name: string): Promise<string | undefined> {
    // Of names that are not there tar says so, and gives what is.
    const command = ['tar', '--extract', '--to-stdout', `--file=${ARCHIVE}`, name, `./${name}`]
    const binds = [{ from: tar, to: ARCHIVE }]
    const { stdout, stderr, exitCode } = await this.#run(command, {
      binds,
      maxOutputBytes: MANIFEST_BYTES,
    })
    if (stdout !== '') return stdout
    if (exitCode === 0 || /not found in archive/i.test(stderr)) return undefined
    throw new AppError('image_not_usable', `it cannot be read as a tar: ${lastWords(stderr)}`)
  }

  async copy(tar: string, choice: ArchiveChoice): Promise<string> {
    const { scratchDir } = this.#options
    const folder = await this.#folder('fetch')
    if (choice.kind === 'docker') {
      await this.#skopeo(`docker-archive:${ARCHIVE}:@${choice.at}`, folder, [{ from: tar, to: ARCHIVE }])
      await rm(tar)
      return folder
    }
    const opened = await this.#folder('opened')
    const extract = [
      'tar',
      '--extract',
      `--file=${ARCHIVE}`,
      '--directory=/work',
      '--no-same-owner',
      '--no-same-permissions',
    ]
    await this.#write(extract, { folder: opened, binds: [{ from: tar, to: ARCHIVE }] })
    await rm(tar)
    await this.#needPlain(opened)
    // Beside what the file has, whose own index may have others: a link that leads somewhere in the sandbox alone.
    const chosen = join(scratchDir, 'chosen')
    await mkdir(chosen)
    await chmod(chosen, 0o755)
    await writeFile(join(chosen, 'index.json'), choice.index, { mode: 0o644 })
    await writeFile(join(chosen, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }), { mode: 0o644 })
    await symlink('/opt/opened/blobs', join(chosen, 'blobs'))
    await this.#skopeo('oci:/opt/chosen', folder, [
      { from: chosen, to: '/opt/chosen' },
      { from: opened, to: '/opt/opened' },
    ])
    await removeUnpacked(opened)
    return folder
  }

  /** A pipe among the blobs would be waited at for ever, and a link be followed. */
  async #needPlain(opened: string): Promise<void> {
    const command = ['find', '/opt/opened', '!', '-type', 'f', '!', '-type', 'd', '-print', '-quit']
    const { stdout, exitCode } = await this.#run(command, { binds: [{ from: opened, to: '/opt/opened' }] })
    if (exitCode === 0 && stdout === '') return
    throw new AppError('image_not_usable', 'it has something that is neither a file nor a folder.')
  }

  async unpackTemplate(fileBytes: number): Promise<string> {
    const { file } = this.#options
    const folder = await this.#folder('opened')
    const extract = [
      'tar',
      '--extract',
      `--file=${ARCHIVE}`,
      '--directory=/work',
      '--no-same-owner',
      ...TEMPLATE_MEMBERS,
    ]
    await this.#write(extract, { folder, fileBytes, binds: [{ from: file, to: ARCHIVE }] })
    await rm(file)
    for (const name of TEMPLATE_MEMBERS) await needFile(join(folder, name))
    return folder
  }

  async #skopeo(source: string, folder: string, binds: readonly Bind[]): Promise<void> {
    const words = ['--insecure-policy', '--tmpdir', '/work', 'copy', '--quiet', '--dest-compress-format', 'gzip']
    await this.#write(['skopeo', ...words, source, 'oci:/work/layout:image'], { folder, binds })
  }

  async #folder(name: string): Promise<string> {
    const { scratchDir, uid } = this.#options
    const folder = join(scratchDir, name)
    await mkdir(folder, { mode: 0o700 })
    await chown(folder, uid, uid)
    return folder
  }

  /** Runs what writes into a folder, as long as that stays within the limits. */
  async #write(command: readonly string[], wish: ToolWish & { readonly folder: string }): Promise<void> {
    const { limits, signal } = this.#options
    await withinLimits(wish.folder, limits, signal, async (stop) => {
      const { exitCode, stderr } = await this.#run(command, wish, stop)
      if (exitCode === 0) return
      // It cannot say so itself.
      if (exitCode === ENDED_BY_SIZE) throw limitSaid('file too large')
      const said = stderr.includes('level=fatal') ? fatalOf(stderr) : lastWords(stderr)
      throw limitSaid(stderr) ?? new AppError('image_not_usable', `it cannot be opened: ${said}`)
    })
  }

  async #run(command: readonly string[], wish: ToolWish, signal = this.#options.signal): Promise<RunResult> {
    const { uid, limits, timeoutMs } = this.#options
    const { folder, binds, fileBytes = limits.maxBytes, maxOutputBytes = STDERR_BYTES } = wish
    const [program, ...args] = sandboxed({
      binds: [...binds, ...(folder === undefined ? [] : [{ from: folder, to: '/work', writable: true }])],
      capabilities: ['CAP_SETUID', 'CAP_SETGID'],
      fileBytes,
      command: ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', ...command],
    })
    try {
      const bounds = { timeoutMs: folder === undefined ? ASK_TIMEOUT_MS : timeoutMs, maxOutputBytes }
      return await runForResult(program, args, { signal, ...bounds })
    } catch (error) {
      throw withoutCommand(error)
    }
  }
}

/** Errors of commands have the host's command line in them, which is no user's business. */
function withoutCommand(error: unknown): unknown {
  if (AppError.is(error, 'timeout'))
    return new AppError('image_not_usable', 'it takes too long to open.', { cause: error })
  if (AppError.is(error, 'engine_failure') && errorText(error).includes('more output')) {
    return new AppError('image_not_usable', 'what it says of its images is larger than 4 MiB.', { cause: error })
  }
  return error
}

async function compressionOf(file: string): Promise<readonly string[] | undefined> {
  await using handle = await open(file, 'r')
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(MAGIC_BYTES), 0, MAGIC_BYTES, 0)
  const head = buffer.subarray(0, bytesRead)
  return compressions.find(({ magic }) => head.subarray(0, magic.length).equals(magic))?.command
}

/** Made by a tool that reads what strangers gave: the host's own eyes follow no link of it. */
async function needFile(path: string): Promise<string> {
  if ((await lstat(path)).isFile()) return path
  throw new AppError('image_not_usable', 'it cannot be opened.')
}
