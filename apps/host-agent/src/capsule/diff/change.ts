/** What of a path differs. Times do not count: a file that was only touched is unchanged. */
export const changedParts = ['content', 'mode', 'owner', 'type', 'target', 'xattr'] as const
/** One word of a change's `what`, as the REST API passes it on. */
export type ChangedPart = (typeof changedParts)[number]

/** One path that differs between two disks. A rename is one `removed` and one `added`. */
export interface FileChange {
  readonly change: 'added' | 'changed' | 'removed'
  /** Absolute, as a user inside the capsule sees it; bytes, because a name need not be text. */
  readonly path: Buffer
  /** Of the newer side, except for `removed`. */
  readonly type: FileKind
  /** Of a file's content or a symlink's target; 0 for all else. */
  readonly size: number
  /** In the order of `changedParts`; empty unless `changed`. `content` includes a device's number. */
  readonly what: readonly ChangedPart[]
}

/** Devices, FIFOs and sockets are `other`; what they are is compared all the same. */
export type FileKind = 'file' | 'directory' | 'symlink' | 'other'
