import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { AppError, isErrno } from '@wrenn/base'
import { type RecipeUpload, readTemplateTail, TEMPLATE_SEAL_BYTES, TEMPLATE_TAIL_BYTES } from '@wrenn/sdk'

const READ_BYTES = 256 * 1024

/** An archive of a template as a file here. */
export interface TemplateFile {
  /** Of the template where it was exported. */
  readonly name: string
  readonly sizeBytes: number
  readonly upload: RecipeUpload
}

/**
 * Writes an archive to a file, which appears under its name when it is whole.
 * @returns how many bytes it has
 * @throws AppError `copy_incomplete` for an archive that was cut, `invalid_request` for a path that cannot be written
 */
export async function saveTemplate(
  archive: ReadableStream<Uint8Array>,
  path: string,
  onBytes: (bytes: number) => void,
): Promise<number> {
  const part = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.part`)
  const file = await open(part, 'wx', 0o600).catch((error: unknown) => {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES', 'EISDIR', 'EROFS')) throw error
    throw new AppError('invalid_request', `${path} cannot be written (${error.code}).`)
  })
  try {
    let bytes = 0
    for await (const chunk of archive) {
      await file.writeFile(chunk)
      bytes += chunk.length
      onBytes(bytes)
    }
    await file.sync()
    await file.close()
    if (!(await look(part))?.isWhole) {
      throw new AppError('copy_incomplete', 'The archive ended before it was complete; export the template again.')
    }
    await rename(part, path)
    return bytes
  } catch (error) {
    await file.close()
    await rm(part, { force: true })
    throw error
  }
}

/** @throws AppError `invalid_request` for what is no whole archive of a template */
export async function openTemplateFile(path: string): Promise<TemplateFile> {
  const found = await look(path).catch((error: unknown) => {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR', 'EACCES')) throw error
    throw new AppError('invalid_request', `${path} cannot be read (${error.code}).`)
  })
  if (found === undefined)
    throw new AppError(
      'invalid_request',
      `${path} is no archive that \`wrenn template export\` has written, or is damaged.`,
    )
  if (!found.isWhole)
    throw new AppError('invalid_request', `${path} is damaged: it does not have the digest that it ends with.`)
  const { name, sizeBytes, sha256: hash } = found
  const source = () => Readable.toWeb(createReadStream(path, { highWaterMark: READ_BYTES, end: sizeBytes - 1 }))
  return { name, sizeBytes, upload: { hash, open: () => source() as ReadableStream<Uint8Array> } } // the same class, typed twice
}

interface Look {
  readonly name: string
  readonly sizeBytes: number
  /** Of the whole file. */
  readonly sha256: string
  readonly isWhole: boolean
}

/** `undefined` for what is no archive of a template. */
async function look(path: string): Promise<Look | undefined> {
  await using file = await open(path, 'r')
  const { size: sizeBytes } = await file.stat()
  const bytes = Buffer.alloc(TEMPLATE_TAIL_BYTES)
  if (sizeBytes < bytes.length) return undefined
  await file.read(bytes, 0, bytes.length, sizeBytes - bytes.length)
  const tail = readTemplateTail(bytes)
  if (tail === undefined) return undefined
  const hash = createHash('sha256')
  const sealed = file.createReadStream({ start: 0, end: sizeBytes - TEMPLATE_SEAL_BYTES - 1, autoClose: false })
  for await (const chunk of sealed) hash.update(chunk)
  const isWhole = hash.copy().digest().equals(tail.digest)
  const sha256 = hash.update(bytes.subarray(-TEMPLATE_SEAL_BYTES)).digest('hex')
  return { name: tail.name, sizeBytes, sha256, isWhole }
}
