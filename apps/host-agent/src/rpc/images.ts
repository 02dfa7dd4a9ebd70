import type { MessageInitShape } from '@bufbuild/protobuf'
import type { ServiceImpl } from '@connectrpc/connect'
import { AppError } from '@wrenn/base'
import type { FetchImageResponseSchema, HostService, ImportImageRequest } from '@wrenn/protocol/host'
import type { FetchedTemplate } from '../capsule/machine.js'
import { parseSnapshotId } from './convert.js'
import { EventQueue } from './event-queue.js'
import { ExportTurns } from './export-turns.js'
import type { ServiceParts, Wrappers } from './handlers.js'

/** A fetch says that it is over; nothing is sent meanwhile. */
const FETCH_WAIT_MS = 3600_000

type FetchedMessage = MessageInitShape<typeof FetchImageResponseSchema>['event'] & { readonly case: 'image' }
type Progress = { readonly case: 'progress'; readonly value: string }
type Wanted = { readonly case: 'wanted'; readonly value: Record<string, never> }

/** Images from elsewhere that become templates of this host: lines of progress first, the image last. */
export function imageHandlers(
  parts: () => ServiceParts,
  { stream }: Wrappers,
): Pick<ServiceImpl<typeof HostService>, 'fetchImage' | 'importImage' | 'exportSnapshot'> {
  const exports = new ExportTurns()
  return {
    fetchImage: stream(async function* ({ reference, login }, { signal }) {
      const { images } = parts()
      const asker = login && { username: login.username, password: login.password }
      yield* followed<Progress>((push) =>
        images.fetch({ reference, login: asker, signal, onProgress: (value) => push({ case: 'progress', value }) }),
      )
    }),
    importImage: stream(async function* (requests: AsyncIterable<ImportImageRequest>, { signal }) {
      const { images } = parts()
      const messages = requests[Symbol.asyncIterator]()
      const { sha256, sizeBytes, image, called } = await opening(messages)
      yield* followed<Progress | Wanted>((push) => {
        const bytes = (): AsyncIterable<Uint8Array> => {
          push({ case: 'wanted', value: {} })
          return chunks(messages)
        }
        const wish = { sha256, sizeBytes: Number(sizeBytes), image: image === '' ? undefined : image, called }
        return images.import({ ...wish, bytes, signal, onProgress: (value) => push({ case: 'progress', value }) })
      })
    }),
    exportSnapshot: stream(async function* ({ snapshotId, name, setup }, { signal }) {
      const { manager, images } = parts()
      if (setup === undefined) throw new AppError('invalid_request', 'setup is required.')
      const { $typeName: _, ...said } = setup
      const id = parseSnapshotId(snapshotId)
      await manager.snapshots.get(id)
      using _turn = exports.take(signal)
      const packed = manager.snapshots.reading(id, ({ manifest, ...files }) => {
        const { vcpus, memoryMib, diskSizeMib, synced } = manifest
        return images.pack({ ...files, name, setup: said, vcpus, memoryMib, diskSizeMib, synced, signal })
      })
      yield { part: { case: 'begin' as const, value: {} } }
      for await (const value of packed) yield { part: { case: 'chunk' as const, value } }
    }),
  }
}

/** What is told of a work while it is done, and what comes of it. */
async function* followed<Event>(
  work: (push: (event: Event) => void) => Promise<FetchedTemplate>,
): AsyncGenerator<{ readonly event: Event | FetchedMessage }> {
  const queue = new EventQueue<Event | FetchedMessage>()
  const over = new AbortController()
  const done = work((event) => queue.push(event))
    .then((image) => queue.push({ case: 'image', value: toFetchedImage(image) }))
    .finally(() => over.abort())
  done.catch(() => {}) // awaited below
  for (;;) {
    const event = await queue.next(FETCH_WAIT_MS, over.signal)
    if (event !== undefined) yield { event }
    else if (over.signal.aborted) break
  }
  await done
}

function toFetchedImage({ sizeBytes, env, entrypoint, command, ports, archived, ...image }: FetchedTemplate) {
  const lists = { env: [...env], entrypoint: [...entrypoint], command: [...command], ports: [...ports] }
  const message = { ...image, ...lists, sizeBytes: BigInt(sizeBytes) }
  if (archived === undefined) return message
  const { setup, vcpus, memoryMib, diskSizeMib, synced } = archived
  return {
    ...message,
    archived: { setup: { ...setup, envs: { ...setup.envs } }, vcpus, memoryMib, diskSizeMib, synced },
  }
}

async function opening(messages: AsyncIterator<ImportImageRequest>) {
  const first = await messages.next()
  if (!first.done && first.value.part.case === 'open') return first.value.part.value
  throw new AppError('invalid_request', 'The first message of ImportImage must be `open`.')
}

async function* chunks(messages: AsyncIterator<ImportImageRequest>): AsyncGenerator<Uint8Array> {
  for (let next = await messages.next(); !next.done; next = await messages.next()) {
    const { part } = next.value
    if (part.case !== 'chunk') throw new AppError('invalid_request', 'Only chunks may follow `open`.')
    yield part.value
  }
}
