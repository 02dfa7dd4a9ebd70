import { lstat, mkdir, readFile, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import { z } from 'zod'
import { run, runForResult } from '../../exec.js'
import { type ImageConfig, MANIFEST_BYTES, parseImageConfig } from './manifest.js'
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

/** What a layout's one image says of itself. @throws AppError `image_not_usable` when it is for another machine */
export async function readLayout(layout: string, architecture: string): Promise<ImageConfig> {
  const index = JSON.parse(await readSmall(join(layout, 'index.json')))
  const { digest } = z.object({ manifests: z.tuple([z.object({ digest: z.string() })]) }).parse(index).manifests[0]
  const manifest = JSON.parse(await readSmall(blobPath(layout, digest)))
  const { config } = z.object({ config: z.object({ digest: z.string() }) }).parse(manifest)
  return parseImageConfig(await readSmall(blobPath(layout, config.digest)), architecture)
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

/**
 * Unpacks a layout's image into `<folder>/rootfs`: owners, modes, times, links, devices, attributes and whiteouts as the layers say. umoci is root
 * in a sandbox where there is nothing but that folder, without rights over the system, its network or its devices.
 * @throws AppError `image_not_usable` when it does not unpack, or becomes more than the limits; `disk_full`
 */
export async function unpackLayout(
  layout: string,
  folder: string,
  limits: ImageLimits,
  { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<string> {
  await mkdir(folder, { mode: 0o700 })
  const [command, ...args] = sandboxed({
    binds: [
      { from: layout, to: '/layout' },
      { from: folder, to: '/work', writable: true },
    ],
    capabilities: ['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_MKNOD', 'CAP_SETFCAP'],
    command: [
      ...['prlimit', `--fsize=${limits.maxBytes}`, '--core=0'],
      ...['umoci', 'raw', 'unpack', '--image', '/layout:image', '/work/rootfs'],
    ],
  })
  using watch = watchGrowth(folder, limits)
  const stop = AbortSignal.any([signal, watch.signal])
  const { exitCode, stderr, stdout } = await runForResult(command, args, { signal: stop, timeoutMs })
  const rootfs = join(folder, 'rootfs')
  if (exitCode !== 0) throw new AppError('image_not_usable', `It cannot be unpacked: ${lastWords(stderr || stdout)}`)
  await needWithin(folder, limits)
  return rootfs
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
      if (bavail * bsize < SPARE_BYTES) throw new AppError('disk_full', 'The pool has no room left for it.')
    }
  }
  look().catch((error: unknown) => {
    if (!done.signal.aborted) over.abort(error)
  })
  return { signal: over.signal, [Symbol.dispose]: () => done.abort() }
}

async function needWithin(folder: string, { maxBytes, maxFiles }: ImageLimits): Promise<void> {
  const [bytes, files] = await Promise.all([sumOf('--block-size=1', folder), sumOf('--inodes', folder)])
  if (bytes > maxBytes) {
    throw new AppError(
      'image_not_usable',
      `Unpacked it takes more than ${Math.floor(maxBytes / 2 ** 20)} MiB (WRENN_IMAGE_MAX_MIB).`,
    )
  }
  if (files > maxFiles)
    throw new AppError('image_not_usable', `It has more than ${maxFiles} files (WRENN_IMAGE_MAX_FILES).`)
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

function lastWords(text: string): string {
  const line = text.trim().split('\n').at(-1) ?? ''
  return line.replace(/^[\s⨯•]+/, '').slice(0, MAX_SAID) || 'umoci did not say why.'
}
