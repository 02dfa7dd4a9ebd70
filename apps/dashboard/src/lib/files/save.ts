import type { Capsule } from '@wrenn/sdk'

/** Larger files would have to be in memory as a whole. */
const MAX_IN_MEMORY_BYTES = 2 * 1024 ** 3
/** How long a browser may take until it has begun with an address of memory. */
const KEPT_MS = 60_000

/**
 * Has the browser keep a file, or a folder as a tar.
 * @throws WrennError as reading does; Error for what is larger than a page can hold
 */
export async function save(capsule: Capsule, path: string, isFolder: boolean): Promise<void> {
  const name = path.split('/').filter(Boolean).at(-1) ?? 'root'
  const stream = isFolder ? await capsule.files.readArchive(path) : await capsule.files.readStream(path)
  keepBlob(await new Response(limited(stream)).blob(), isFolder ? `${name}.tar` : name)
}

/** Has the browser keep what the page has. */
export function keepBlob(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob)
  keepAt(url, name)
  setTimeout(() => URL.revokeObjectURL(url), KEPT_MS)
}

/** Has the browser keep what is at an address of this site, as large as it may be: nothing of it is in the page. */
export function keepAt(url: string, name: string): void {
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
}

function limited(stream: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  let seen = 0
  const limit = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      seen += chunk.length
      if (seen > MAX_IN_MEMORY_BYTES) throw new Error('This is more than 2 GiB: `wrenn capsule cp` fetches it.')
      controller.enqueue(chunk)
    },
  })
  return stream.pipeThrough(limit)
}
