import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, isErrno } from '@wrenn/base'
import { z } from 'zod'

const absolutePath = z.string().regex(/^\/(?!.*(^|\/)\.\.(\/|$))[\w./@+-]+$/, 'must be an absolute path without ".."')
const accountName = z.string().regex(/^[a-z][a-z0-9-]{0,31}$/)
const imageName = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,62}$/)

const manifestSchema = z.strictObject({
  name: imageName,
  aliases: z.array(imageName).default([]),
  description: z.string().default(''),
  /** Debian release. */
  suite: z.string().regex(/^[a-z]+$/),
  variant: z.enum(['minbase', 'apt', 'essential']).default('minbase'),
  packages: z.array(z.string().regex(/^[a-z0-9][a-z0-9.+-]+$/)),
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
  files: z
    .array(
      z.strictObject({
        path: absolutePath,
        content: z.string(),
        mode: z
          .string()
          .regex(/^0[0-7]{3}$/)
          .default('0644'),
      }),
    )
    .default([]),
})

/** What `images/<name>.json` says. */
export type ImageManifest = z.infer<typeof manifestSchema>

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

async function readManifests(imagesDir: string): Promise<readonly ImageManifest[]> {
  const names = await readdir(imagesDir).catch((error: unknown) => {
    if (!isErrno(error, 'ENOENT')) throw error
    throw new AppError('invalid_config', `The folder of image manifests, ${imagesDir}, does not exist.`)
  })
  const files = names.filter((name) => name.endsWith('.json')).sort()
  return await Promise.all(files.map((name) => parseManifest(join(imagesDir, name))))
}

async function parseManifest(path: string): Promise<ImageManifest> {
  try {
    return manifestSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : String(error)
    throw new AppError('invalid_config', `The image manifest ${path} is not usable: ${why}`, { cause: error })
  }
}
