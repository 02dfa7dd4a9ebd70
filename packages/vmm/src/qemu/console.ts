import { isErrno } from '@wrenn/base'
import { CONSOLE_BYTES } from './command-line.js'
import type { QmpClient } from './qmp.js'
import { putFile, readTail } from './safe-file.js'

/** Reading the console must never hold up a kill. */
const READ_DEADLINE_MS = 250

/**
 * The end of a guest's console. QEMU keeps it in a ring whose reading empties it, so what was read is appended to a bounded
 * file at once: a later process that adopts the guest still finds it.
 */
export class ConsoleTail {
  readonly #path: string
  #tail: Buffer | undefined

  constructor(path: string) {
    this.#path = path
  }

  /** Takes over what the guest has written since the last time. */
  async drain(qmp: QmpClient): Promise<void> {
    const before = await this.#load()
    const args = { device: 'console', size: CONSOLE_BYTES, format: 'base64' }
    const read = await qmp.execute('ringbuf-read', args, { deadlineMs: READ_DEADLINE_MS })
    if (typeof read !== 'string' || read === '') return
    this.#tail = Buffer.concat([this.#tail ?? before, Buffer.from(read, 'base64')]).subarray(-CONSOLE_BYTES)
    await putFile(this.#path, this.#tail).catch((error: unknown) => {
      // A full disk or a run directory that its owner has removed must not make the console unreadable.
      if (!isErrno(error, 'ENOENT', 'ENOSPC', 'EDQUOT')) throw error
    })
  }

  async text(maxBytes = CONSOLE_BYTES): Promise<string> {
    const tail = await this.#load()
    return maxBytes <= 0 ? '' : tail.subarray(-maxBytes).toString('utf8')
  }

  async #load(): Promise<Buffer> {
    this.#tail ??= await readTail(this.#path, CONSOLE_BYTES)
    return this.#tail
  }
}
