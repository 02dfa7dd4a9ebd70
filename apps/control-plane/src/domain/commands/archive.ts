import type { Readable } from 'node:stream'
import { AppError } from '@wrenn/base'
import type { ArchiveEnd } from '@wrenn/protocol'
import type { ReadArchiveResponse } from '@wrenn/protocol/host'
import { fromHostError } from '../../host/errors.js'
import { type FileTarget, Upload } from './files.js'

/** An archive whose beginning has come, so that what is wrong with its path has been said already. */
export interface OpenedArchive {
  /**
   * The bytes of the tar, as fast as they are taken, then how it ended. A failure in the middle is thrown.
   */
  readonly pieces: AsyncGenerator<Uint8Array, ArchiveEnd>
  /** Ends the call, also where no piece has been asked for; idempotent. */
  readonly abort: () => void
}

/**
 * Begins an archive of what the target names. The caller aborts what it does not read to its end.
 * @throws AppError `file_not_found`, `permission_denied`, `not_a_directory`, …
 */
export async function openArchive(target: FileTarget): Promise<OpenedArchive> {
  const abort = new AbortController()
  try {
    const parts = await target.wake.use(target.capsule, () => begin(target, abort.signal))
    return { pieces: piecesOf(target.path, parts, abort), abort: () => abort.abort() }
  } catch (error) {
    abort.abort()
    throw fromHostError(error)
  }
}

type Parts = AsyncIterator<ReadArchiveResponse>

async function begin({ client, capsule, path, user }: FileTarget, signal: AbortSignal): Promise<Parts> {
  const parts = client.readArchive({ capsuleId: capsule.id, path, user }, { signal })[Symbol.asyncIterator]()
  const first = await parts.next()
  if (first.done === true || first.value.part.case !== 'begin') {
    throw new AppError('guest_error', 'The guest did not answer with an archive.')
  }
  return parts
}

async function* piecesOf(path: string, parts: Parts, abort: AbortController): AsyncGenerator<Uint8Array, ArchiveEnd> {
  try {
    for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
      const { part } = next.value
      if (part.case === 'chunk') yield part.value
      if (part.case !== 'end') continue
      const { code, message, notes } = part.value
      return { notes, ...(code === '' ? {} : { error: { code, message } }) }
    }
    throw new AppError('guest_error', `The archive of ${path} ended too early.`)
  } catch (error) {
    throw interrupted(fromHostError(error), `The capsule was paused while the archive of ${path} was read.`)
  } finally {
    abort.abort()
  }
}

/**
 * Unpacks a tar from a stream into the directory of the target, as fast as the guest takes it. After a failure what had arrived
 * may be there. @returns how many bytes the tar had
 */
export async function writeArchive(target: FileTarget, source: Readable): Promise<number> {
  const upload = new Upload(source)
  try {
    const options = target.signal === undefined ? {} : { signal: target.signal }
    return await target.wake.use(target.capsule, () => send(target, upload), options)
  } finally {
    upload.close()
  }
}

async function send({ client, capsule, path, user, signal }: FileTarget, upload: Upload): Promise<number> {
  async function* requests() {
    yield { part: { case: 'open' as const, value: { capsuleId: capsule.id, path, user } } }
    for await (const value of upload.chunks()) yield { part: { case: 'chunk' as const, value } }
  }
  const abort = new AbortController()
  const either = signal === undefined ? abort.signal : AbortSignal.any([abort.signal, signal])
  try {
    const { bytes } = await client.writeArchive(requests(), { signal: either })
    return Number(bytes)
  } catch (error) {
    const failure = upload.explain(fromHostError(error), path)
    if (failure.code !== 'upload_interrupted') throw failure
    const text = `The capsule was paused while an archive was unpacked into ${path}; what had arrived may be there.`
    throw new AppError('transfer_interrupted', text, { cause: failure })
  } finally {
    abort.abort()
  }
}

/** What a host says of a capsule that was put to sleep under a transfer. */
function interrupted(failure: AppError, text: string): AppError {
  return failure.code === 'invalid_state' ? new AppError('transfer_interrupted', text, { cause: failure }) : failure
}
