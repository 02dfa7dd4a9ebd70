import type { ChunkedFile } from './chunked-file.js'

/** At a time: of what a capsule needs to go on, and of the rest, beside which it runs. */
const PARALLEL = { first: 12, rest: 4 } as const

/**
 * Brings all of a file: first what its reader is known to need, in that order, then the rest.
 * @param first places of chunks; those that the file does not have are left out
 */
export async function prefetch(
  file: ChunkedFile,
  { first, all }: { readonly first: readonly number[]; readonly all: readonly number[] },
  signal: AbortSignal,
): Promise<void> {
  await inParallel(file, first, PARALLEL.first, signal)
  await inParallel(file, all, PARALLEL.rest, signal)
}

async function inParallel(
  file: ChunkedFile,
  places: readonly number[],
  count: number,
  signal: AbortSignal,
): Promise<void> {
  const queue = places[Symbol.iterator]()
  const work = async (): Promise<void> => {
    for (const place of queue) {
      if (signal.aborted) return
      if (file.isAbsent(place)) await file.need(place)
    }
  }
  await Promise.all(Array.from({ length: count }, work))
}
