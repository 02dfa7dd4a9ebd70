import { lstat, mkdir, readFile, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import { z } from 'zod'
import { type RunResult, run, runForResult } from '../../exec.js'
import { type ImageConfig, MANIFEST_BYTES, parseImageConfig, parseManifest } from './manifest.js'
import { sandboxed } from './sandbox.js'

/** A look costs as much as a walk through the folder. */
const LOOK_EVERY_MS = 2_000
/** Kept free for everybody else. */
const SPARE_BYTES = 256 * 2 ** 20

/** What an image may become. */
export interface ImageLimits {
  readonly maxBytes: number
  readonly maxFiles: number
}

/** What a layout's one image says of itself, and its digest. @throws AppError `image_not_usable` when it is for another machine */
export async function readLayout(
  layout: string,
  architecture: string,
): Promise<{ readonly config: ImageConfig; readonly manifest: string }> {
  const index = JSON.parse(await readSmall(join(layout, 'index.json')))
  const { digest } = z.object({ manifests: z.tuple([z.object({ digest: z.string() })]) }).parse(index).manifests[0]
  const raw = await readSmall(blobPath(layout, digest))
  const image = parseManifest(raw, architecture)
  if (image.kind !== 'image') throw new AppError('image_not_usable', 'It is an index of images.')
  const { config } = z.object({ config: z.object({ digest: z.string() }) }).parse(JSON.parse(raw))
  return {
    config: parseImageConfig(await readSmall(blobPath(layout, config.digest)), architecture),
    manifest: digest,
  }
}

function blobPath(layout: string, digest: string): string {
  const hex = /^sha256:([0-9a-f]{64})$/.exec(digest)?.[1]
  if (hex === undefined)
    throw new AppError('image_not_usable', `It has the digest ${digest.slice(0, 100)}, which is none of SHA-256.`)
  return join(layout, 'blobs/sha256', hex)
}

/** Written by skopeo, which is not trusted: what is no plain file of a moderate size is not read. */
async function readSmall(path: string): Promise<string> {
  const info = await lstat(path)
  if (!info.isFile() || info.size > MANIFEST_BYTES)
    throw new AppError('image_not_usable', 'Its manifest or config is too large.')
  return await readFile(path, 'utf8')
}

/** What an image was unpacked to. */
export interface Unpacked {
  readonly rootfs: string
  /** Of disk. */
  readonly bytes: number
}

/**
 * Unpacks a layout's image into `<folder>/rootfs`: owners, modes, times, links, devices, attributes and whiteouts as the layers say. umoci is root
 * in a sandbox where there is nothing but that folder, without rights over the system, its network or its devices.
 * @throws AppError `image_not_usable` when it does not unpack in time, or becomes more than the limits; `disk_full`
 */
export async function unpackLayout(
  layout: string,
  folder: string,
  limits: ImageLimits,
  { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<Unpacked> {
  await mkdir(folder, { mode: 0o700 })
  const [command, ...args] = sandboxed({
    binds: [
      { from: layout, to: '/layout' },
      { from: folder, to: '/work', writable: true },
    ],
    capabilities: ['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_MKNOD', 'CAP_SETFCAP'],
    fileBytes: limits.maxBytes,
    command: ['umoci', 'raw', 'unpack', '--image', '/layout:image', '/work/rootfs'],
  })
  const { bytes } = await withinLimits(folder, limits, signal, async (stop) => {
    needUnpacked(await runForResult(command, args, { signal: stop, timeoutMs }))
  }).catch((error: unknown) => {
    // Its message has the command line.
    if (!AppError.is(error, 'timeout')) throw error
    throw new AppError('image_not_usable', 'It takes too long to unpack.', { cause: error })
  })
  return { rootfs: join(folder, 'rootfs'), bytes }
}

function needUnpacked({ exitCode, stderr, stdout }: RunResult): void {
  if (exitCode === 0) return
  const said = stderr || stdout
  throw limitSaid(said) ?? new AppError('image_not_usable', `It cannot be unpacked: ${lastWords(said)}`)
}

/** What tools in Go say when they, or the disk, are at their limits. */
const limitWords = [
  { when: /no space left on device/i, make: noRoom },
  {
    when: /SIGXFSZ|file too large/i,
    make: () => new AppError('image_not_usable', 'It has a file of more than WRENN_IMAGE_MAX_MIB.'),
  },
  {
    when: /out of memory|cannot allocate memory/i,
    make: () => new AppError('image_not_usable', 'It takes more memory than there is for it.'),
  },
] as const

/** What a tool's last words mean, where they tell of a limit. */
export function limitSaid(words: string): AppError | undefined {
  return limitWords.find(({ when }) => when.test(words))?.make()
}

function noRoom(): AppError {
  return new AppError('disk_full', 'The pool has no room left for it.')
}

/**
 * Runs what writes into the folder, ends it once that has become too much, and measures it at the end.
 * @throws AppError `image_not_usable`, `disk_full`; what the task throws
 */
export async function withinLimits(
  folder: string,
  limits: ImageLimits,
  signal: AbortSignal,
  task: (signal: AbortSignal) => Promise<void>,
): Promise<{ readonly bytes: number }> {
  using watch = watchGrowth(folder, limits)
  await task(AbortSignal.any([signal, watch.signal]))
  return { bytes: await needWithin(folder, limits) }
}

/** Ends what writes into the folder once it has become too much. */
function watchGrowth(folder: string, limits: ImageLimits): { readonly signal: AbortSignal } & Disposable {
  const over = new AbortController()
  const done = new AbortController()
  const look = async (): Promise<void> => {
    while (!done.signal.aborted) {
      await delay(LOOK_EVERY_MS, undefined, { signal: done.signal })
      const { bavail, bsize } = await statfs(folder)
      await needWithin(folder, limits)
      if (bavail * bsize < SPARE_BYTES) throw noRoom()
    }
  }
  look().catch((error: unknown) => {
    if (!done.signal.aborted) over.abort(error)
  })
  return { signal: over.signal, [Symbol.dispose]: () => done.abort() }
}

async function needWithin(folder: string, { maxBytes, maxFiles }: ImageLimits): Promise<number> {
  const [bytes, files] = await Promise.all([sumOf('--block-size=1', folder), sumOf('--inodes', folder)])
  if (bytes > maxBytes) {
    throw new AppError(
      'image_not_usable',
      `It takes more than ${Math.floor(maxBytes / 2 ** 20)} MiB (WRENN_IMAGE_MAX_MIB).`,
    )
  }
  if (files > maxFiles)
    throw new AppError('image_not_usable', `It has more than ${maxFiles} files (WRENN_IMAGE_MAX_FILES).`)
  return bytes
}

/** Files may go while they are counted. */
async function sumOf(option: string, folder: string): Promise<number> {
  const { stdout } = await runForResult('du', ['--summarize', '--one-file-system', option, folder], {
    timeoutMs: 600_000,
  })
  return Number.parseInt(stdout, 10) || 0
}

/** Removes what an image was unpacked to; names may be any bytes, which rules `rm` of Node.js out. */
export async function removeUnpacked(folder: string): Promise<void> {
  if ((await stat(folder).catch(() => undefined)) === undefined) return
  await run('rm', ['-rf', '--one-file-system', '--', folder], { timeoutMs: 600_000 })
}

const MAX_SAID = 300

/** The last line that a tool wrote, without its ornaments. */
export function lastWords(text: string): string {
  const line = text.trim().split('\n').at(-1) ?? ''
  return line.replace(/^[\s⨯•]+/, '').slice(0, MAX_SAID) || 'nobody said why.'
}
