import { join } from 'node:path'
import { AppError } from '@wrenn/base'
import { formatDisk } from './ext4.js'
import type { ImageStoreOptions } from './progress.js'
import { exists, LayerStore } from './store.js'

/** Part of the file's name: changes whenever `formatDisk` makes another file system. */
const FORMAT = 1
const MIN_MIB = 64

/**
 * Path of an empty, formatted ext4 file of `sizeMib`, made once per size. It is read-only and sparse: clone it (FICLONE) for
 * each capsule and make the clone writable.
 */
export async function blankDisk(
  poolDir: string,
  sizeMib: number,
  options: Pick<ImageStoreOptions, 'signal' | 'onProgress'> = {},
): Promise<string> {
  if (!Number.isInteger(sizeMib) || sizeMib < MIN_MIB) {
    throw new AppError('invalid_request', `disk_size_mb must be a whole number of at least ${MIN_MIB}.`)
  }
  const store = new LayerStore(poolDir)
  const name = `${sizeMib}-v${FORMAT}.ext4`
  if (await exists(store.blankPath(name))) return store.blankPath(name)
  await using lease = await store.lease(options)
  if (await exists(store.blankPath(name))) return store.blankPath(name)
  options.onProgress?.({ step: 'disk', detail: `Formatting an empty disk of ${sizeMib} MiB` })
  const scratch = join(lease.scratchDir, name)
  await formatDisk(scratch, sizeMib, options.signal)
  return await store.publishBlank(scratch, name)
}
