import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import type { StoredFile } from '@wrenn/object-store'
import type { ChunkOrigin } from './chunked-file.js'

const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 5_000

/**
 * Chunks of a stored file, asked for again while the store is away: the guest that reads them stands still meanwhile.
 * @param giveUpMs after so long without the chunk its last failure is thrown
 */
export function patientOrigin(file: StoredFile, giveUpMs: number): ChunkOrigin {
  const chunk = async (place: number, signal: AbortSignal) => {
    const deadline = performance.now() + giveUpMs
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      try {
        const fetched = await file.chunk(place, signal)
        await file.pace.take(fetched.storedBytes, signal)
        return fetched
      } catch (error) {
        const mayHelp = AppError.is(error, 'object_store_unavailable', 'object_store_refused')
        if (signal.aborted || !mayHelp || performance.now() > deadline) throw error
      }
      await delay(pauseMs, undefined, { signal })
    }
  }
  return { sizeBytes: file.sizeBytes, chunkBytes: file.chunkBytes, places: file.places, chunk }
}
