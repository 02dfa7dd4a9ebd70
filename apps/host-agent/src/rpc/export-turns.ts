import { AppError } from '@wrenn/base'

/** Each packs and compresses as fast as it is read. */
const MAX_EXPORTS = 4
const RETRY_AFTER_SEC = 10

/** Exports that a host has under way: a few, for each takes a process and reads a whole disk. */
export class ExportTurns {
  #working = 0

  /**
   * A turn until it is disposed or the signal ends, for nobody may come to dispose what is not read any more.
   * @throws AppError `limit_exceeded` with `retryAfterSec`
   */
  take(signal: AbortSignal): Disposable {
    signal.throwIfAborted()
    if (this.#working >= MAX_EXPORTS) {
      const message = `${MAX_EXPORTS} exports of templates are under way on this host; try again when one has ended.`
      throw new AppError('limit_exceeded', message, { details: { retryAfterSec: RETRY_AFTER_SEC } })
    }
    this.#working++
    let isOver = false
    const end = (): void => {
      if (!isOver) this.#working--
      isOver = true
      signal.removeEventListener('abort', end)
    }
    signal.addEventListener('abort', end)
    return { [Symbol.dispose]: end }
  }
}
