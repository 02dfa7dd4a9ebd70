import type { ImageStoreOptions } from './progress.js'
import { LayerStore } from './store.js'

/** What became of a check of all layers. */
export interface VerifyResult {
  readonly checked: number
  /** Digests whose file no longer has that content. */
  readonly damaged: readonly string[]
}

/** Reads every layer and compares it with its name. */
export async function verifyImages(poolDir: string, signal?: AbortSignal): Promise<VerifyResult> {
  const store = new LayerStore(poolDir)
  const digests = await store.digests()
  const damaged: string[] = []
  for (const digest of digests) {
    signal?.throwIfAborted()
    if (!(await store.isIntact(digest))) damaged.push(digest)
  }
  return { checked: digests.length, damaged }
}

/** Removes layers that no name means any more and nobody uses: earlier agent drives, kernels and images. */
export async function pruneLayers(
  options: Pick<ImageStoreOptions, 'poolDir' | 'signal' | 'onProgress'> & {
    readonly inUse: (digest: string) => boolean
  },
): Promise<readonly string[]> {
  const store = new LayerStore(options.poolDir)
  await using _lease = await store.lease(options)
  const named = await store.referencedDigests()
  const unused = (await store.digests()).filter((digest) => !named.has(digest) && !options.inUse(digest))
  for (const digest of unused) await store.removeLayer(digest)
  return unused
}
