import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { AppError, abortable, isErrno } from '@wrenn/base'

interface Expected {
  /** Hexadecimal. */
  readonly sha256: string
  readonly sizeBytes: number
  readonly signal: AbortSignal
}

/** Writes bytes to a new file as they come. @throws AppError `invalid_request` for bytes that are not those that were told, `disk_full` */
export async function receive(
  bytes: AsyncIterable<Uint8Array>,
  path: string,
  { sha256, sizeBytes, signal }: Expected,
): Promise<void> {
  await using file = await open(path, 'wx', 0o400)
  const hash = createHash('sha256')
  let received = 0
  const source = bytes[Symbol.asyncIterator]()
  try {
    while (received <= sizeBytes) {
      const next = await abortable(source.next(), signal)
      if (next.done === true) break
      received += next.value.length
      hash.update(next.value)
      await file.writeFile(next.value)
    }
  } catch (error) {
    if (!isErrno(error, 'ENOSPC', 'EDQUOT')) throw error
    throw new AppError('disk_full', 'the pool has no room left for it.', { cause: error })
  } finally {
    // Not awaited: one that waits for a chunk ends with it.
    void source.return?.().catch(() => {})
  }
  if (received === sizeBytes && hash.digest('hex') === sha256) return
  throw new AppError('invalid_request', 'its bytes are not those of its digest.')
}
