import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { AppError, isErrno } from '@wrenn/base'
import { z } from 'zod'

const absolutePath = z.string().regex(/^\/(?!.*(^|\/)\.\.(\/|$))[\w./@+-]+$/, 'must be an absolute path without ".."')
const accountName = z.string().regex(/^[a-z][a-z0-9-]{0,31}$/)
const imageName = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,62}$/)

const mode = z
  .string()
  .regex(/^0[0-7]{3}$/)
  .default('0644')
const fileWithContent = z.strictObject({ path: absolutePath, content: z.string(), mode })
/** `source` is relative to the folder of manifests. */
const fileFromSource = z.strictObject({
  path: absolutePath,
  source: z.string().regex(/^[\w-]+\/[\w.-]+$/),
  mode,
})

const manifestSchema = z.strictObject({
  name: imageName,
  aliases: z.array(imageName).default([]),
  description: z.string().default(''),
  /** Debian release. */
  suite: z.string().regex(/^[a-z]+$/),
  variant: z.enum(['minbase', 'apt', 'essential']).default('minbase'),
  packages: z.array(z.string().regex(/^[a-z0-9][a-z0-9.+-]+$/)),
  /** Of packages, what is kept out of the image, in dpkg's patterns. */
  exclude: z.array(z.string().regex(/^\/[\w./*+-]+$/)).optional(),
  /** A shell line that root runs in the new system on this host, for what would take long in a guest. */
  prepare: z.string().min(1).optional(),
  /** What a build takes of the pool while it runs. */
  buildSpaceMib: z.number().int().min(1).optional(),
  /** Of a capsule that does not ask for a size. */
  vcpus: z.number().int().min(1).optional(),
  memoryMib: z.number().int().min(128).optional(),
  /** A shell line that succeeds in the guest as soon as what the image runs at its boot is ready; its memory is saved then. */
  ready: z.string().min(1).optional(),
  hostname: z.string().regex(/^[a-z][a-z0-9-]{0,62}$/),
  users: z.array(
    z.strictObject({
      name: accountName,
      uid: z.number().int().min(1000).max(59_999),
      home: absolutePath,
      shell: absolutePath,
      /** May become root without a password. */
      sudo: z.boolean().default(false),
    }),
  ),
  symlinks: z.array(z.strictObject({ path: absolutePath, target: z.string().min(1) })).default([]),
  files: z.array(z.union([fileWithContent, fileFromSource])).default([]),
})

/** What `images/<name>.json` says, with the content of all files. */
export type ImageManifest = Omit<z.infer<typeof manifestSchema>, 'files'> & {
  readonly files: readonly z.infer<typeof fileWithContent>[]
}

/**
 * The manifest of an image, by name or alias.
 * @throws AppError `not_found` listing the names there are; `invalid_config` when a manifest is malformed
 */
export async function readManifest(imagesDir: string, nameOrAlias: string): Promise<ImageManifest> {
  const manifests = await readManifests(imagesDir)
  const found = manifests.find(({ name, aliases }) => name === nameOrAlias || aliases.includes(nameOrAlias))
  if (found !== undefined) return found
  const known = manifests.map(({ name }) => name).join(', ') || 'none'
  throw new AppError('template_not_found', `There is no image "${nameOrAlias}". Known images: ${known}.`)
}

/** Every manifest there is, by file name. @throws AppError `invalid_config` when one is malformed */
export async function readManifests(imagesDir: string): Promise<readonly ImageManifest[]> {
  const names = await readdir(imagesDir).catch((error: unknown) => {
    if (!isErrno(error, 'ENOENT')) throw error
    throw new AppError('invalid_config', `The folder of image manifests, ${imagesDir}, does not exist.`)
  })
  const files = names.filter((name) => name.endsWith('.json')).sort()
  return await Promise.all(files.map((name) => parseManifest(join(imagesDir, name))))
}

async function parseManifest(path: string): Promise<ImageManifest> {
  try {
    const manifest = manifestSchema.parse(JSON.parse(await readFile(path, 'utf8')))
    const files = await Promise.all(
      manifest.files.map(async (file) =>
        'content' in file
          ? file
          : { path: file.path, content: await readFile(join(dirname(path), file.source), 'utf8'), mode: file.mode },
      ),
    )
    return { ...manifest, files }
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : String(error)
    throw new AppError('invalid_config', `The image manifest ${path} is not usable: ${why}`, { cause: error })
  }
}
