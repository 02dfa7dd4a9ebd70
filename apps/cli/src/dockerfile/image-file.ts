import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { Readable } from 'node:stream'
import { AppError, isErrno } from '@wrenn/base'
import { imageFileRecipe, type Recipe, type RecipeUpload } from '@wrenn/sdk'

/** What a name of a stage is, an image's among them; `./a=b.tar` and `/a=b.tar` are paths. */
const named = /^([A-Za-z0-9][\w.:/@-]*)=(.+)$/s
const CHUNK_BYTES = 256 * 1024

/** `--image-file` as it is given: what stages call it, where one is named, and where it is. */
interface GivenFile {
  readonly from: string | undefined
  readonly path: string
}

/** How files of images are given: alone each is the template, by names Dockerfiles begin with them. */
export interface GivenImages {
  readonly imageFile: readonly string[]
  /** By what the image is called in the one file. */
  readonly image?: string
}

/** The one file that is to be the template as it is, if that is what is asked for. @throws AppError `invalid_request` */
export function aloneFileOf({ imageFile, image }: GivenImages): string | undefined {
  if (image !== undefined && imageFile.length !== 1)
    throw new AppError('invalid_request', '--image chooses from one --image-file.')
  const files = imageFile.map(given)
  if (!files.some(({ from }) => from === undefined)) return undefined
  if (files.length > 1) {
    throw new AppError(
      'invalid_request',
      '--image-file: several need names, NAME=FILE, by which the Dockerfile begins with them.',
    )
  }
  return files[0]?.path
}

/** A recipe of the file alone. @throws AppError `invalid_request` for what cannot be read */
export async function recipeOfFile(path: string, image: string | undefined): Promise<Recipe> {
  return imageFileRecipe(await uploadOf(path), { called: basename(path), ...(image === undefined ? {} : { image }) })
}

/** The recipe, its stages of these names beginning with files. @throws AppError `invalid_request` for a name that none begins with */
export async function withImageFiles<T extends Recipe>(recipe: T, { imageFile, image }: GivenImages): Promise<T> {
  const uploads: RecipeUpload[] = []
  const imageFiles: Record<string, { hash: string; image?: string }> = {}
  for (const { from = '', path } of imageFile.map(given)) {
    if (!recipe.stages.some((stage) => stage.from === from)) {
      throw new AppError('invalid_request', `--image-file ${from}=…: no stage that is built is FROM ${from}.`)
    }
    const upload = await uploadOf(path)
    if (!uploads.some(({ hash }) => hash === upload.hash)) uploads.push(upload)
    imageFiles[from] = { hash: upload.hash, ...(image === undefined ? {} : { image }) }
  }
  return { ...recipe, uploads: [...recipe.uploads, ...uploads], imageFiles }
}

function given(text: string): GivenFile {
  const [, from, path = text] = named.exec(text) ?? []
  return { from, path }
}

async function uploadOf(path: string): Promise<RecipeUpload> {
  const hash = await digestOf(path).catch((error: unknown) => {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR', 'EACCES')) throw error
    throw new AppError('invalid_request', `--image-file: ${path} cannot be read (${error.code}).`)
  })
  const open = (): ReadableStream<Uint8Array> => {
    const source = Readable.from(unchanged(path, hash), { objectMode: false })
    return Readable.toWeb(source) as ReadableStream<Uint8Array> // the same class, typed twice
  }
  return { hash, open }
}

async function digestOf(path: string): Promise<string> {
  if (!(await stat(path)).isFile()) throw new AppError('invalid_request', `--image-file: ${path} is no file.`)
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES })) hash.update(chunk)
  return hash.digest('hex')
}

/** Its last bytes come only when all are those of the digest: an upload that breaks off is none. */
async function* unchanged(path: string, digest: string): AsyncGenerator<Buffer> {
  const hash = createHash('sha256')
  let held: Buffer | undefined
  for await (const chunk of createReadStream(path, { highWaterMark: CHUNK_BYTES })) {
    hash.update(chunk)
    if (held !== undefined) yield held
    held = chunk
  }
  if (hash.digest('hex') !== digest)
    throw new AppError('invalid_request', `${path} changed while it was read; build again.`)
  if (held !== undefined) yield held
}
