import { acquireFileLock } from '../file-lock.js'
import type { ImageStoreOptions } from './progress.js'

/** Waits until this process alone may build. */
export async function acquireBuildLock(
  path: string,
  { signal, onProgress }: Pick<ImageStoreOptions, 'signal' | 'onProgress'>,
): Promise<AsyncDisposable> {
  return await acquireFileLock(path, {
    signal,
    onWait: () => onProgress?.({ step: 'lock', detail: 'Waiting for another build to finish' }),
  })
}
