import { type Duplex, Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { createTarPacker, type TarPackController } from 'modern-tar'

/** Writes files into a `.tar.gz` one after the other, as fast as its reader takes it. */
export class ArchiveWriter {
  readonly #controller: TarPackController
  readonly #mtime: Date
  readonly #written: Promise<void>
  #failure: unknown

  /** `to` ends with the archive; what it passes on its way is before it. */
  constructor([through, to]: readonly [Duplex, Writable], mtime: Date) {
    const { readable, controller } = createTarPacker()
    this.#controller = controller
    this.#mtime = mtime
    this.#written = pipeline(Readable.fromWeb(readable), createGzip(), through, to)
    this.#written.catch((error: unknown) => {
      this.#failure = error
      controller.error(error)
    })
  }

  async add(name: string, content: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    const header = { name, size: content.length, mode: 0o600, mtime: this.#mtime, type: 'file' } as const
    const writer = this.#controller.add(header).getWriter()
    await writer.write(content)
    await writer.close()
  }

  async addJson(name: string, value: unknown): Promise<void> {
    await this.add(name, Buffer.from(`${JSON.stringify(value, undefined, 2)}\n`))
  }

  /** Waits until all was written. */
  async finish(): Promise<void> {
    this.#controller.finalize()
    await this.#written
  }

  /** Ends it without its end: nobody takes what is there for an archive. */
  async abandon(reason: unknown): Promise<void> {
    this.#controller.error(reason)
    await this.#written.catch(() => {}) // by the reason
  }
}
