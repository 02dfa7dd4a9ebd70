import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError } from '@wrenn/base'
import type { ExportSnapshotRequestSchema, ExportSnapshotResponse } from '@wrenn/protocol/host'
import { fromHostError, unlessOlderHost } from '../../host/errors.js'
import type { HostCalls } from '../../host/host.js'

/** An archive whose beginning has come. */
export interface OpenedTemplateArchive {
  /** Its bytes, as fast as they are taken; a failure in the middle is thrown. */
  readonly chunks: AsyncGenerator<Uint8Array>
  /** Ends the call to the host, also where no byte has been asked for; idempotent. */
  readonly abort: () => void
}

/** An export as a whole, as an import. */
const TIMEOUT_MS = 60 * 60_000

type Parts = AsyncIterator<ExportSnapshotResponse>

/**
 * Begins the archive of a snapshot, which lasts until its chunks end or the caller aborts it, an hour at most.
 * @throws AppError `template_not_found`, `host_unavailable`, `limit_exceeded`, `not_supported` by the host
 */
export async function openTemplateArchive(
  { client }: HostCalls,
  request: MessageInitShape<typeof ExportSnapshotRequestSchema>,
): Promise<OpenedTemplateArchive> {
  const abort = new AbortController()
  const late = AbortSignal.timeout(TIMEOUT_MS)
  const signal = AbortSignal.any([abort.signal, late])
  try {
    const parts = client.exportSnapshot(request, { signal })[Symbol.asyncIterator]()
    const first = await parts.next()
    if (first.done === true || first.value.part.case !== 'begin')
      throw new AppError('host_unavailable', 'The host did not answer with an archive.')
    return { chunks: chunksOf(parts, abort, late), abort: () => abort.abort() }
  } catch (error) {
    abort.abort()
    throw fromHostError(unlessOlderHost(error, 'exports no templates'))
  }
}

async function* chunksOf(parts: Parts, abort: AbortController, late: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
      if (next.value.part.case === 'chunk') yield next.value.part.value
    }
  } catch (error) {
    if (late.aborted) throw new AppError('timeout', `The export took longer than ${TIMEOUT_MS / 60_000} min.`)
    throw fromHostError(error)
  } finally {
    abort.abort()
  }
}
