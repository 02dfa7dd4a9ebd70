import type { ObjectStoreConfig } from './config.js'
import type { ObjectStore } from './object-store.js'
import { openObjectStore } from './open.js'

/** The store of a configuration for a whole process: opened, and probed, when it is first wanted, and again by the next who wants it after that has failed. */
export class SharedStore {
  readonly #config: ObjectStoreConfig
  #opening: Promise<ObjectStore> | undefined

  constructor(config: ObjectStoreConfig) {
    this.#config = config
  }

  /** @throws AppError as {@link openObjectStore} */
  async open(): Promise<ObjectStore> {
    this.#opening ??= openObjectStore(this.#config).catch((error: unknown) => {
      this.#opening = undefined
      throw error
    })
    return await this.#opening
  }
}
