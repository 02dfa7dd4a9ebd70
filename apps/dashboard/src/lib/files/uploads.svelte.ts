import { Wrenn } from '@wrenn/sdk'
import { type Failure, failureOf, isAbort } from '../failure.js'
import type { Dropped } from './dropped.js'
import { joined } from './paths.js'
import { fetchWithProgress } from './xhr-fetch.js'

/** One file on its way. */
export interface Upload {
  readonly path: string
  readonly sizeBytes: number
  readonly sentBytes: number
  readonly failure: Failure | undefined
  readonly isDone: boolean
}

/** More would only share the same line. */
const AT_ONCE = 3

/** Files on their way into a capsule. */
export class Uploads {
  list = $state.raw<readonly Upload[]>([])
  readonly isBusy = $derived(this.list.some(({ isDone, failure }) => !isDone && failure === undefined))
  readonly #capsuleId: string
  #ended = new AbortController()

  constructor(capsuleId: string) {
    this.#capsuleId = capsuleId
  }

  /** Sends all of them; failures are in the list. */
  async send(directory: string, files: readonly Dropped[]): Promise<void> {
    const waiting = files.map(({ file, path }) => ({ file, path: joined(directory, path) }))
    const paths = new Set(waiting.map(({ path }) => path))
    const added = waiting.map(({ file, path }) => ({
      path,
      sizeBytes: file.size,
      sentBytes: 0,
      failure: undefined,
      isDone: false,
    }))
    this.list = [...this.list.filter(({ path }) => !paths.has(path)), ...added]
    const lane = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift())
        await this.#sendOne(next.path, next.file)
    }
    await Promise.all(Array.from({ length: AT_ONCE }, lane))
  }

  /** Ends those that are under way, and forgets all. */
  clear(): void {
    this.#ended.abort()
    this.#ended = new AbortController()
    this.list = []
  }

  async #sendOne(path: string, file: File): Promise<void> {
    const { signal } = this.#ended
    try {
      const fetch = fetchWithProgress((sentBytes) => this.#change(path, { sentBytes }))
      const wrenn = new Wrenn({ apiUrl: location.origin, cookies: true, fetch })
      const capsule = await wrenn.capsules.get(this.#capsuleId, { signal })
      await capsule.files.write(path, file, { signal })
      this.#change(path, { isDone: true, sentBytes: file.size })
    } catch (error) {
      if (!signal.aborted && !isAbort(error)) this.#change(path, { failure: failureOf(error) })
    }
  }

  #change(path: string, change: Partial<Upload>): void {
    this.list = this.list.map((upload) => (upload.path === path ? { ...upload, ...change } : upload))
  }
}
