import { type BuildInfo, type Recipe, type StartBuildOptions, Wrenn } from '@wrenn/sdk'
import { uploadFetch } from './upload-fetch.js'

/** Who reads what a build is made of. */
export interface Reading {
  readonly signal: AbortSignal
  /** Told how many bytes more were read. */
  readonly onRead: (bytes: number) => void
}

/** A build on its way from the page to the platform: what it is made of is read, then sent, and the build let go. */
export class Departure {
  /** `undefined` while nothing is under way. */
  stage = $state.raw<'reading' | 'sending'>()
  /** Of the stage. */
  doneBytes = $state(0)
  #ended: AbortController | undefined

  /** @returns `undefined` when it was stopped. @throws what reading and `startBuild` throw */
  async begin(
    name: string,
    read: (reading: Reading) => Promise<Recipe>,
    options: StartBuildOptions,
  ): Promise<BuildInfo | undefined> {
    const ended = new AbortController()
    this.#ended = ended
    const { signal } = ended
    const onBytes = (bytes: number): void => {
      this.doneBytes += bytes
    }
    try {
      this.#enter('reading')
      const recipe = await read({ signal, onRead: onBytes })
      signal.throwIfAborted()
      this.#enter('sending')
      const wrenn = new Wrenn({ apiUrl: location.origin, cookies: true, fetch: uploadFetch(onBytes) })
      return await wrenn.templates.startBuild(name, recipe, { ...options, signal })
    } catch (error) {
      if (signal.aborted) return undefined
      throw error
    } finally {
      this.stage = undefined
    }
  }

  /** Nothing is built then. */
  stop(): void {
    this.#ended?.abort()
  }

  #enter(stage: 'reading' | 'sending'): void {
    this.stage = stage
    this.doneBytes = 0
  }
}
