/**
 * What a comparison reads: whole disks of one capsule, so that both lie on the same base image. Nothing of them is mounted.
 */
export interface DiffInput {
  /** The data disk of the older point in time. It must not be written to while the diff is read, nor `toDisk`. */
  readonly fromDisk: string
  /** The newer one; what only it has is `added`. */
  readonly toDisk: string
  /** The base image of both. */
  readonly basePath: string
  /** Only this absolute path, in the form of `pathText`, and what is below it. @default everything */
  readonly path?: string | undefined
  readonly signal?: AbortSignal | undefined
}
