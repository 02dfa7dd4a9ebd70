import type { Owner } from '../../e2e/harness/host.js'

/** Where the suite's host lives: plain data, so that it can be handed to the tests. */
export interface Site extends Owner {
  /** Copy of the built product that runs. */
  readonly artefacts: string
  /** Whole environment of every process of the product. */
  readonly env: Readonly<Record<string, string>>
  readonly stepFile: string
  readonly port: number
  /** Why there is no object store, when there is none. */
  readonly withoutStore?: string
}

/** Namespaces that wait for a guest. */
export const SLOT_POOL = 2

declare module 'vitest' {
  export interface ProvidedContext {
    site: Site
  }
}
