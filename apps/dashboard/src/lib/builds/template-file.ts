import {
  imageFileRecipe,
  type Recipe,
  type RecipeUpload,
  readTemplateTail,
  TEMPLATE_SEAL_BYTES,
  TEMPLATE_TAIL_BYTES,
  WrennError,
} from '@wrenn/sdk'
import { changed } from '../files/changed.js'

/** What a file is, of which a template can be made. */
export type TemplateFile =
  /** What an export has given. */
  | { readonly kind: 'template'; readonly name: string; readonly digest: Uint8Array }
  | { readonly kind: 'image'; readonly packing: 'tar' | 'gzip' | 'zstd' | 'xz' }

/** Small enough that the page answers meanwhile. */
const CHUNK_BYTES = 1024 * 1024
const HEAD_BYTES = 512
const EXPORTED = /\.wrenn$/i
/** In the head of each tar since 1988. */
const USTAR = { at: 257, bytes: [0x75, 0x73, 0x74, 0x61, 0x72] }
const PACKINGS = [
  { packing: 'gzip', at: 0, bytes: [0x1f, 0x8b] },
  { packing: 'zstd', at: 0, bytes: [0x28, 0xb5, 0x2f, 0xfd] },
  { packing: 'xz', at: 0, bytes: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] },
  { packing: 'tar', ...USTAR },
] as const

/** Looks at its begin and end alone. @throws WrennError `invalid_request` for what no template can be made of, `file_not_found` */
export async function lookAt(file: File): Promise<TemplateFile> {
  const { name, size } = file
  const tail = await bytesOf(file, Math.max(0, size - TEMPLATE_TAIL_BYTES), size)
  const said = readTemplateTail(tail)
  if (said !== undefined) return { kind: 'template', name: said.name, digest: said.digest }
  if (EXPORTED.test(name)) {
    throw refusal(`${name} is no export of a template, or its end is missing.`, 'Export the template again.')
  }
  const head = await bytesOf(file, 0, Math.min(size, HEAD_BYTES))
  const found = PACKINGS.find(({ at, bytes }) => bytes.every((byte, index) => head[at + index] === byte))
  if (found !== undefined) return { kind: 'image', packing: found.packing }
  throw refusal(
    `${name} is neither an image nor an export of a template.`,
    '`docker save -o app.tar app:2` writes an image, `wrenn template export` a template.',
  )
}

/** How a template of this file may be called. */
export function nameFor(file: Pick<File, 'name'>, found: TemplateFile): string {
  const name =
    found.kind === 'template' ? found.name : file.name.replace(/(?:\.oci)?(?:\.tar)?(?:\.[a-z0-9]{1,6})?$/i, '')
  return name
    .replace(/[^\w.-]+/g, '-')
    .replace(/^[^a-z0-9]+/i, '')
    .slice(0, 64)
}

/** Which image, and who follows the reading. */
export interface ReadOptions {
  /** Of several in the file. @default it has one alone */
  readonly image?: string | undefined
  readonly signal: AbortSignal
  /** Told how many bytes more were read. */
  readonly onRead: (bytes: number) => void
}

/**
 * The recipe of a file, which is read once for its digest.
 * @throws WrennError `invalid_request` for an export that is damaged, `file_not_found` for a file that changed; `signal`'s reason
 */
export async function recipeOf(file: File, found: TemplateFile, options: ReadOptions): Promise<Recipe> {
  const { image, ...reading } = options
  const { hash, sealed } = await digestsOf(file, reading)
  if (found.kind === 'template' && !isSame(sealed, found.digest)) {
    throw refusal(
      `${file.name} is damaged: it does not have the digest that it ends with.`,
      'Export the template again.',
    )
  }
  // As it is, so that the browser sends it from where it lies.
  const upload: RecipeUpload = { hash, open: () => file }
  return imageFileRecipe(upload, { called: file.name, ...(image === undefined ? {} : { image }) })
}

async function digestsOf(file: File, { signal, onRead }: Pick<ReadOptions, 'signal' | 'onRead'>) {
  const [{ sha256 }, { bytesToHex }] = await Promise.all([
    import('@noble/hashes/sha2.js'),
    import('@noble/hashes/utils.js'),
  ])
  const sum = sha256.create()
  const add = async (from: number, end: number): Promise<void> => {
    for (let at = from; at < end; at += CHUNK_BYTES) {
      signal.throwIfAborted()
      const chunk = await bytesOf(file, at, Math.min(end, at + CHUNK_BYTES))
      sum.update(chunk)
      onRead(chunk.length)
    }
  }
  const sealAt = Math.max(0, file.size - TEMPLATE_SEAL_BYTES)
  await add(0, sealAt)
  const sealed = sum.clone().digest()
  await add(sealAt, file.size)
  return { hash: bytesToHex(sum.digest()), sealed }
}

async function bytesOf(file: File, from: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await file.slice(from, end).arrayBuffer())
  } catch (error) {
    throw changed(file.name, error)
  }
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index])
}

function refusal(sentence: string, hint: string): WrennError {
  return new WrennError(sentence, { code: 'invalid_request', hint })
}
