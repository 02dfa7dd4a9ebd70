import { readFile, writeFile } from 'node:fs/promises'
import { z } from 'zod'

/** What a guest reads in this time from its first read on is what it needs to go on. */
const RECORD_MS = 10_000

const schema = z.object({ format: z.literal(1), chunkBytes: z.int(), places: z.array(z.int().min(0)) })

/** Places of chunks that were read first the last time; none where nobody has noted that, or of chunks of another size. */
export async function readWorkingSet(path: string, chunkBytes: number): Promise<readonly number[]> {
  try {
    const found = schema.parse(JSON.parse(await readFile(path, 'utf8')))
    return found.chunkBytes === chunkBytes ? found.places : []
  } catch {
    return [] // a hint: without it the order is another one
  }
}

/** Notes what is read first. */
export class WorkingSet {
  readonly #places: number[] = []
  readonly #write: (text: string) => Promise<void>
  readonly #chunkBytes: number
  #timer: NodeJS.Timeout | undefined
  #isOver = false

  constructor(path: string, chunkBytes: number) {
    this.#chunkBytes = chunkBytes
    this.#write = async (text) => await writeFile(path, text, { mode: 0o600 })
  }

  add(place: number): void {
    if (this.#isOver) return
    this.#timer ??= setTimeout(() => void this.end(), RECORD_MS)
    this.#places.push(place)
  }

  /** Writes what was read so far, if anything was. */
  async end(): Promise<void> {
    clearTimeout(this.#timer)
    if (this.#isOver || this.#places.length === 0) return
    this.#isOver = true
    const noted = { format: 1, chunkBytes: this.#chunkBytes, places: this.#places } as const
    await this.#write(JSON.stringify(noted)).catch(() => {}) // a hint, on a disk that may be full
  }
}
