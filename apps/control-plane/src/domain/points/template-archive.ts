import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError } from '@wrenn/base'
import type { ExportSnapshotRequestSchema, ExportSnapshotResponse } from '@wrenn/protocol/host'
import { fromHostError, isUnknownCall } from '../../host/errors.js'
import type { Host } from '../../host/host.js'

type Parts = AsyncIterator<ExportSnapshotResponse>

/**
 * Begins the archive of a snapshot; a failure in the middle is thrown, and ending it early ends the call.
 * @throws AppError `template_not_found`, `host_unavailable`, `not_supported` by the host
 */
export async function openTemplateArchive(
  { client }: Host,
  request: MessageInitShape<typeof ExportSnapshotRequestSchema>,
): Promise<AsyncGenerator<Uint8Array>> {
  const abort = new AbortController()
  try {
    const parts = client.exportSnapshot(request, { signal: abort.signal })[Symbol.asyncIterator]()
    const first = await parts.next()
    if (first.done === true || first.value.part.case !== 'begin')
      throw new AppError('host_unavailable', 'The host did not answer with an archive.')
    return chunksOf(parts, abort)
  } catch (error) {
    abort.abort()
    if (!isUnknownCall(error)) throw fromHostError(error)
    throw new AppError('not_supported', 'The host agent is older than the platform, and exports no templates.', {
      cause: error,
    })
  }
}

async function* chunksOf(parts: Parts, abort: AbortController): AsyncGenerator<Uint8Array> {
  try {
    for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
      if (next.value.part.case === 'chunk') yield next.value.part.value
    }
  } catch (error) {
    throw fromHostError(error)
  } finally {
    abort.abort()
  }
}
