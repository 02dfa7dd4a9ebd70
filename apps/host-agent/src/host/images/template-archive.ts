import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { mkdtemp, open, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '@wrenn/base'
import {
  minimumMemoryMib,
  readTemplateTail,
  TEMPLATE_ARCHIVE_VERSION,
  TEMPLATE_SEAL_BYTES,
  TEMPLATE_TAIL_BYTES,
  type TemplateTail,
  templateLabel,
  templateSeal,
} from '@wrenn/protocol'
import { z } from 'zod'
import { hostToolEnvironment } from '../exec.js'
import { spawnTool } from '../spawn-tool.js'

const READ_BYTES = 2 ** 20
const MANIFEST_BYTES = 2 * 2 ** 20
const MAX_TEXT = 256 * 1024
/** Of a capsule. */
const MIN_DISK_MIB = 64
const MAX_DISK_MIB = 4 * 2 ** 20

const text = z.string().max(MAX_TEXT)
const setupSchema = z.object({
  user: text,
  cwd: text,
  envs: z.record(text, text),
  startCommand: text,
  readyCommand: text,
})
const manifestSchema = z.object({
  format: z.literal('wrenn-template'),
  version: z.literal(TEMPLATE_ARCHIVE_VERSION),
  name: text,
  architecture: text,
  vcpus: z.int().min(1).max(1024),
  memoryMib: z.int().min(minimumMemoryMib).max(4_194_304),
  diskSizeMib: z.int().min(MIN_DISK_MIB).max(MAX_DISK_MIB),
  /** SHA-256 of the base image, which is shared with whatever has the same. */
  base: z.string().regex(/^[0-9a-f]{64}$/),
  synced: z.boolean(),
  setup: setupSchema,
})
/** What an archive of a template says of it, beside its base image and its disk. */
export type TemplateManifest = z.infer<typeof manifestSchema>
/** How commands run in a template's capsules, and what runs in it from the start on; empty: nothing. */
export type TemplateSetup = z.infer<typeof setupSchema>

interface Packed {
  readonly manifest: Omit<TemplateManifest, 'format' | 'version'>
  readonly basePath: string
  /** It must not change meanwhile. */
  readonly diskPath: string
  /** For a small folder that is gone afterwards. */
  readonly scratchRoot: string
  readonly signal: AbortSignal
}

/** The archive of a template: a tar of zstd, holes left out, and at its end what it is and the digest of all that. */
export async function* packTemplate({
  manifest,
  basePath,
  diskPath,
  scratchRoot,
  signal,
}: Packed): AsyncGenerator<Uint8Array> {
  const folder = await mkdtemp(join(scratchRoot, 'export-'))
  try {
    const full: TemplateManifest = { format: 'wrenn-template', version: TEMPLATE_ARCHIVE_VERSION, ...manifest }
    await writeFile(join(folder, 'wrenn-template.json'), JSON.stringify(full))
    await symlink(basePath, join(folder, 'base.ext4'))
    await symlink(diskPath, join(folder, 'disk.raw'))
    const hash = createHash('sha256')
    for await (const chunk of tarOf(folder, signal)) {
      hash.update(chunk)
      yield chunk
    }
    const label = templateLabel(manifest.name)
    yield label
    yield templateSeal(hash.update(label).digest())
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function* tarOf(folder: string, signal: AbortSignal): AsyncGenerator<Buffer> {
  const words = [
    ...['--create', '--file=-', '--zstd', '--sparse', '--dereference', `--directory=${folder}`],
    ...['--owner=0', '--group=0', '--numeric-owner', '--mode=0600', '--mtime=@0'],
    ...['wrenn-template.json', 'base.ext4', 'disk.raw'],
  ]
  const child = spawnTool('tar', words, { env: hostToolEnvironment, stdin: 'ignore', signal, killSignal: 'SIGKILL' })
  const ended = once(child, 'close')
  ended.catch(() => {}) // awaited below
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    said = `${said}${chunk}`.slice(-1_000)
  })
  try {
    yield* child.stdout
    const [code] = await ended
    signal.throwIfAborted()
    if (code !== 0)
      throw new AppError('engine_failure', 'The template could not be packed.', { cause: new Error(said) })
  } finally {
    child.kill('SIGKILL')
  }
}

/** What a file says at its end that it is; `undefined` for what is no archive of a template. */
export async function templateTailOf(path: string): Promise<TemplateTail | undefined> {
  await using file = await open(path, 'r')
  const { size } = await file.stat()
  if (size < TEMPLATE_TAIL_BYTES) return undefined
  const tail = Buffer.alloc(TEMPLATE_TAIL_BYTES)
  const { bytesRead } = await file.read(tail, 0, tail.length, size - tail.length)
  return readTemplateTail(tail.subarray(0, bytesRead))
}

/** @throws AppError `image_not_usable` for an archive of which a byte is another, or of a version that is not known */
export async function needWhole(path: string, { version, digest }: TemplateTail, signal: AbortSignal): Promise<void> {
  const { size } = await stat(path)
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, {
    end: size - TEMPLATE_SEAL_BYTES - 1,
    highWaterMark: READ_BYTES,
    signal,
  }))
    hash.update(chunk)
  if (!hash.digest().equals(digest))
    throw new AppError('image_not_usable', 'it is damaged: it does not have the digest that it ends with.')
  if (version === TEMPLATE_ARCHIVE_VERSION) return
  throw new AppError(
    'image_not_usable',
    `it is an archive of version ${version}, and this platform knows ${TEMPLATE_ARCHIVE_VERSION}.`,
  )
}

/** @throws AppError `image_not_usable` for what no host has written, or one of another machine */
export async function readTemplateManifest(path: string, architecture: string): Promise<TemplateManifest> {
  const isSmall = (await stat(path)).size <= MANIFEST_BYTES
  const parsed = manifestSchema.safeParse(isSmall ? parseJson(await readFile(path, 'utf8')) : undefined)
  if (!parsed.success) throw new AppError('image_not_usable', 'what it says of its template is not as it should be.')
  if (parsed.data.architecture === architecture) return parsed.data
  throw new AppError(
    'image_not_usable',
    `it is for linux/${parsed.data.architecture}, and this host is linux/${architecture}.`,
  )
}

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}
