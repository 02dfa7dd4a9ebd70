import { z } from 'zod'

/** Beside the file that is loaded, in the directory of a state. */
export const LOADER_FILES = {
  memory: 'mem',
  /** While it is there, the memory beside it is only worth something through its loader: which that is. */
  mark: 'mem.loading',
  /** What the mark becomes once the memory is a file like any other: which loader still has to end. */
  ending: 'mem.ending',
  /** The memory's own name is covered by the mount; by this one it is what is really on the disk. */
  real: 'mem.real',
  /** All of it is on the disk, apart from what the guest has changed. */
  whole: 'mem.whole',
  /** Why the loader has given up, a sentence. */
  failed: 'mem.failed',
  /** What a guest reads first. */
  workingSet: 'working-set.json',
} as const

/** What a loader is told on its standard input, for it holds keys. */
export const loaderOrderSchema = z.object({
  /** Configuration of the object store, with its secret. */
  store: z.object({
    bucket: z.string(),
    prefix: z.string(),
    endpoint: z.string().optional(),
    region: z.string(),
    accessKeyId: z.string(),
    secretAccessKey: z.string(),
    forcePathStyle: z.boolean(),
  }),
  bytesPerSec: z.number().optional(),
  team: z.string(),
  /** In base64. */
  key: z.string(),
  stateId: z.string(),
  giveUpMs: z.number(),
})
/** @see loaderOrderSchema */
export type LoaderOrder = z.infer<typeof loaderOrderSchema>
