import type { Logger } from '@wrenn/base'

/** One line for a person who waits. */
export interface Progress {
  /** Stable name: `lock`, `lists`, `kernel`, `initramfs`, `modules`, `agent-drive`, `download`, `bootstrap`, `image`, `disk`, `done`. */
  readonly step: string
  readonly detail: string
  /** 0 to 1 where it is known. */
  readonly fraction?: number
}

/** What every operation of this folder takes. */
export interface ImageStoreOptions {
  /** `WRENN_DIR/pool`; layers live in its folder `layers`. */
  readonly poolDir: string
  /** `WRENN_DIR/apt`: package lists and downloads, one folder for each Debian release. */
  readonly aptDir: string
  /** The repository's (or installation's) `images/` folder: manifests and boot scripts. */
  readonly imagesDir: string
  readonly logger: Logger
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: Progress) => void
}
