import { AppError } from '@wrenn/base'
import type { FetchedImage } from '@wrenn/protocol/host'
import { unlessOlderHost } from '../../host/errors.js'
import type { HostCalls } from '../../host/host.js'
import type { BuildFiles } from './build-files.js'

/** An image of a file that a team has uploaded. */
export interface ImageFile {
  readonly teamId: string
  /** By what the upload is called. */
  readonly hash: string
  /** By what the image is called in the file. @default it has one alone */
  readonly image?: string | undefined
  /** As errors call the file. */
  readonly called: string
}

interface ImportDeps {
  readonly host: HostCalls
  readonly files: Pick<BuildFiles, 'digest' | 'open'>
  readonly signal: AbortSignal
  /** A sentence for people. */
  readonly onProgress: (sentence: string) => void
}

/**
 * Has the host make a template of an uploaded image. The host knows files by what they have, not by what clients call them, and takes one once.
 * @throws AppError `image_not_found`, `image_not_usable`, `disk_full`, `build_failed` when the file is gone, `host_unavailable`, `not_supported` by the host
 */
export async function importImage(
  deps: ImportDeps,
  { teamId, hash, image = '', called }: ImageFile,
): Promise<FetchedImage> {
  const { host, files, signal, onProgress } = deps
  const { sha256, sizeBytes } = await files.digest(teamId, hash, signal)
  const open = { sha256, sizeBytes: BigInt(sizeBytes), image, called }
  let answer = (_isWanted: boolean): void => {}
  const isWanted = new Promise<boolean>((resolve) => {
    answer = resolve
  })
  async function* requests() {
    yield { part: { case: 'open' as const, value: open } }
    if (!(await isWanted)) return
    for await (const value of (await files.open(teamId, hash)).stream) yield { part: { case: 'chunk' as const, value } }
  }
  const over = new AbortController()
  const callSignal = AbortSignal.any([signal, over.signal])
  return await host.call(async (client) => {
    try {
      for await (const { event } of client.importImage(requests(), { signal: callSignal })) {
        if (event.case === 'wanted') answer(true)
        if (event.case === 'progress') onProgress(event.value)
        if (event.case === 'image') return event.value
      }
    } catch (error) {
      throw unlessOlderHost(error, 'takes no images of files')
    } finally {
      answer(false)
      over.abort()
    }
    throw new AppError('host_unavailable', 'The host broke off the import of the image.')
  })
}
