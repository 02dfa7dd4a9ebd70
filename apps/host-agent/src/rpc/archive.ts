import { Readable } from 'node:stream'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import { AppError } from '@wrenn/base'
import type { HostService, WriteArchiveRequest } from '@wrenn/protocol/host'
import {
  archivePieces,
  type GuestClient,
  type GuestStream,
  openArchive,
  unpackArchive,
} from '../capsule/guest/index.js'
import { parseCapsuleId } from './convert.js'
import type { ServiceParts, Wrappers } from './handlers.js'

const CHUNK_BYTES = 256 * 1024

type ArchiveCalls = Pick<ServiceImpl<typeof HostService>, 'readArchive' | 'writeArchive'>

/** Archives in and out of guests. While one is under way its capsule is in use. */
export function archiveHandlers(parts: () => ServiceParts, { unary, stream }: Wrappers): ArchiveCalls {
  const explain = async (capsuleId: string, thrown: unknown) => await parts().manager.explain(capsuleId, thrown)
  const guestOf = async (capsuleId: string): Promise<GuestClient> =>
    (await parts().manager.running(parseCapsuleId(capsuleId))).client

  return {
    readArchive: stream(async function* ({ capsuleId, path, user }, { signal }) {
      const client = await guestOf(capsuleId)
      const close = parts().manager.activity.open(capsuleId)
      let body: GuestStream | undefined
      try {
        body = await openArchive(client, path, user, signal)
        yield { part: { case: 'begin', value: {} } }
        const pieces = archivePieces(body)
        let next = await pieces.next()
        for (; !next.done; next = await pieces.next()) yield { part: { case: 'chunk', value: next.value } }
        const { error, notes } = next.value
        yield { part: { case: 'end', value: { notes: [...notes], ...error } } }
      } catch (error) {
        throw await explain(capsuleId, error)
      } finally {
        body?.close()
        close()
      }
    }),
    writeArchive: unary(async (requests: AsyncIterable<WriteArchiveRequest>, { signal }: HandlerContext) => {
      const messages = requests[Symbol.asyncIterator]()
      const { capsuleId, path, user } = await opening(messages)
      const client = await guestOf(capsuleId)
      const close = parts().manager.activity.open(capsuleId)
      try {
        const body = Readable.from(chunks(messages), { objectMode: false, highWaterMark: CHUNK_BYTES })
        return { bytes: BigInt(await unpackArchive(client, path, user, body, signal)) }
      } catch (error) {
        throw await explain(capsuleId, error)
      } finally {
        close()
      }
    }),
  }
}

async function opening(messages: AsyncIterator<WriteArchiveRequest>) {
  const first = await messages.next()
  if (!first.done && first.value.part.case === 'open') return first.value.part.value
  throw new AppError('invalid_request', 'The first message of WriteArchive must be `open`.')
}

async function* chunks(messages: AsyncIterator<WriteArchiveRequest>): AsyncGenerator<Uint8Array> {
  for (let next = await messages.next(); !next.done; next = await messages.next()) {
    const { part } = next.value
    if (part.case !== 'chunk') throw new AppError('invalid_request', 'Only chunks may follow `open`.')
    yield part.value
  }
}
