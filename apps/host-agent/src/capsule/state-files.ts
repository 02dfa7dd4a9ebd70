import { z } from 'zod'

/** Names in the directory of a saved state, or of a running guest. */
export const STATE_FILES = { state: 'state', memory: 'mem', disk: 'disk.raw' } as const

/** Files a restored guest starts from. */
export interface GuestFiles {
  readonly diskPath: string
  readonly memoryPath: string
  readonly statePath: string
}

/** @see Hardware of `@wrenn/vmm` */
export const hardwareSchema = z.object({ machine: z.string(), cpu: z.string(), layout: z.number() })

/** How manifests and the journal keep {@link StoredImage}. Fields are never renamed: states of earlier releases must load. */
export const storedImageSchema = z.object({
  digest: z.string(),
  /** Paths below the pool, so that a pool may move with its directory. */
  basePath: z.string(),
  agentPath: z.string(),
  kernelPath: z.string(),
  initrdPath: z.string(),
  kernelArgs: z.array(z.string()),
  /** Digests of all of these files. */
  layers: z.array(z.string()),
})
/** What a saved guest needs of the host's read-only files. Its memory refers to exactly these. */
export type StoredImage = z.infer<typeof storedImageSchema>
