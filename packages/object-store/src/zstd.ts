import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** Fast: links to object stores are seldom faster than it compresses, and guest memory becomes little smaller with more. */
const LEVEL = 1
/** What the build puts beside a bundle. */
const BESIDE_BUNDLE = 'zstd.node'

/** The native part of `@mongodb-js/zstd`, whose JavaScript passes no level on; both work beside the event loop. */
interface Zstd {
  compress(plain: Buffer, level: number): Promise<Buffer>
  decompress(packed: Buffer): Promise<Buffer>
}

let loaded: Zstd | undefined

function zstd(): Zstd {
  loaded ??= load()
  return loaded
}

function load(): Zstd {
  const require = createRequire(import.meta.url)
  const beside = fileURLToPath(new URL(BESIDE_BUNDLE, import.meta.url))
  return require(existsSync(beside) ? beside : `@mongodb-js/zstd-linux-${process.arch}-gnu`) as Zstd
}

/** @returns `undefined` when it would not become smaller */
export async function compress(plain: Buffer): Promise<Buffer | undefined> {
  const packed = await zstd().compress(plain, LEVEL)
  return packed.length < plain.length ? packed : undefined
}

/** @throws an Error for what is no zstd frame */
export async function decompress(packed: Buffer): Promise<Buffer> {
  return await zstd().decompress(packed)
}
