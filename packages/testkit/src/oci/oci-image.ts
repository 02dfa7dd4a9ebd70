import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

/** One manifest of a layout. */
export interface OciImage {
  /** Tars, the lowest first. */
  readonly layers: readonly Buffer[]
  /** What `config` of the image's config says. */
  readonly config?: Readonly<Record<string, unknown>>
  /** @default amd64 */
  readonly architecture?: string
}

const types = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
} as const

/** What is below a folder as a tar, with owners, devices, links and attributes. */
export function tarOf(folder: string): Buffer {
  const words = [
    '--create',
    '--numeric-owner',
    '--xattrs',
    '--xattrs-include=*',
    '--sort=name',
    '--directory',
    folder,
    '.',
  ]
  return execFileSync('tar', words, { maxBuffer: 2 ** 31 })
}

/**
 * Writes an OCI layout whose image is called `image`; several images make it an index of them.
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
 */
export async function writeOciLayout(
  folder: string,
  images: readonly OciImage[],
  compression: 'gzip' | 'zstd' = 'gzip',
) {
  await mkdir(join(folder, 'blobs/sha256'), { recursive: true })
  const put = async (mediaType: string, content: Buffer | object) => {
    const bytes = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content))
    const hex = createHash('sha256').update(bytes).digest('hex')
    await writeFile(join(folder, 'blobs/sha256', hex), bytes)
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length }
  }
  const pack = (tar: Buffer): Buffer =>
    compression === 'gzip'
      ? gzipSync(tar)
      : execFileSync('zstd', ['--stdout'], { input: tar, maxBuffer: 2 ** 31, stdio: ['pipe', 'pipe', 'ignore'] })
  const manifests = []
  for (const { layers, config = {}, architecture = 'amd64' } of images) {
    const packed = []
    for (const tar of layers) packed.push(await put(`application/vnd.oci.image.layer.v1.tar+${compression}`, pack(tar)))
    const diffIds = layers.map((tar) => `sha256:${createHash('sha256').update(tar).digest('hex')}`)
    const rootfs = { type: 'layers', diff_ids: diffIds }
    const described = await put(types.config, { architecture, os: 'linux', config, rootfs })
    const manifest = { schemaVersion: 2, mediaType: types.manifest, config: described, layers: packed }
    manifests.push({ ...(await put(types.manifest, manifest)), platform: { os: 'linux', architecture } })
  }
  const [first] = manifests
  const top =
    manifests.length === 1 && first !== undefined
      ? first
      : await put(types.index, { schemaVersion: 2, mediaType: types.index, manifests })
  const called = { ...top, annotations: { 'org.opencontainers.image.ref.name': 'image' } }
  await writeFile(join(folder, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [called] }))
  await writeFile(join(folder, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
}
