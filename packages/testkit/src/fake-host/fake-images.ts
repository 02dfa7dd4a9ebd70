import { createHash } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { AppError } from '@wrenn/base'
import { parseImageReference, templateLabel, templateSeal } from '@wrenn/protocol'
import type {
  ExportSnapshotRequest,
  ExportSnapshotResponseSchema,
  FetchImageRequest,
  FetchImageResponseSchema,
  ImportImageRequest,
  ImportImageResponseSchema,
} from '@wrenn/protocol/host'
import type { FakeHostState, FakeImage } from './fake-state.js'

/** An image of a registry, as the host agent gives it. */
export async function* fetchImage(
  host: FakeHostState,
  { reference, login }: FetchImageRequest,
): AsyncGenerator<MessageInitShape<typeof FetchImageResponseSchema>> {
  if (parseImageReference(reference) === undefined) throw new AppError('invalid_request', 'That is no image reference.')
  yield { event: { case: 'progress', value: `Asking for ${reference}` } }
  await host.faults.pass('fetch', 'before')
  const image = host.images.get(reference)
  const { login: needed } = image ?? {}
  const mayRead = needed === undefined || (needed.username === login?.username && needed.password === login.password)
  if (image === undefined || !mayRead) throw new AppError('image_not_found', `${reference}: there is no such image.`)
  yield { event: { case: 'image', value: fetched(host, image) } }
}

/** An image of a file that the fake host knows by its digest; the bytes are taken once, and compared with it. */
export async function* importImage(
  host: FakeHostState,
  requests: AsyncIterable<ImportImageRequest>,
): AsyncGenerator<MessageInitShape<typeof ImportImageResponseSchema>> {
  const messages = requests[Symbol.asyncIterator]()
  const first = await messages.next()
  const open = first.done === true ? undefined : first.value.part
  if (open?.case !== 'open') throw new AppError('invalid_request', 'The first message must be `open`.')
  const { sha256, image: wanted, called } = open.value
  await host.faults.pass('fetch', 'before')
  if (!host.takenFiles.has(sha256)) {
    yield { event: { case: 'wanted', value: {} } }
    yield { event: { case: 'progress', value: 'Taking the file' } }
    if ((await digestOf(messages)) !== sha256) {
      throw new AppError('invalid_request', `${called}: its bytes are not those of its digest.`)
    }
    host.takenFiles.add(sha256)
  }
  const images = Object.entries(host.imageFiles.get(sha256) ?? {})
  if (images.length === 0)
    throw new AppError('image_not_usable', `${called}: it is neither of docker save nor an OCI layout.`)
  const [image, ...others] = images.filter(([name]) => wanted === '' || name === wanted)
  const names = images.map(([name]) => name).join(', ')
  if (image === undefined) throw new AppError('image_not_found', `${called}: it has no image ${wanted}, but ${names}.`)
  if (others.length > 0) {
    throw new AppError(
      'image_not_usable',
      `${called}: it has ${images.length} images, of which one is to be chosen: ${names}.`,
    )
  }
  yield { event: { case: 'image', value: fetched(host, image[1]) } }
}

/** What archives of the fake host have before their ends: JSON of what is said of the template. */
export async function* exportSnapshot(
  host: FakeHostState,
  { snapshotId, name, setup }: ExportSnapshotRequest,
): AsyncGenerator<MessageInitShape<typeof ExportSnapshotResponseSchema>> {
  const snapshot = host.snapshots.get(snapshotId)
  if (snapshot === undefined)
    throw new AppError('template_not_found', `There is no snapshot ${snapshotId} on this host.`)
  yield { part: { case: 'begin', value: {} } }
  const { $typeName: _, ...said } = setup ?? {}
  const content = Buffer.concat([Buffer.from(JSON.stringify({ snapshotId, ...said })), templateLabel(name)])
  yield { part: { case: 'chunk', value: content } }
  await host.faults.pass('export', 'before')
  yield { part: { case: 'chunk', value: templateSeal(createHash('sha256').update(content).digest()) } }
}

async function digestOf(messages: AsyncIterator<ImportImageRequest>): Promise<string> {
  const hash = createHash('sha256')
  for (let next = await messages.next(); next.done !== true; next = await messages.next()) {
    if (next.value.part.case !== 'chunk') throw new AppError('invalid_request', 'Only chunks may follow `open`.')
    hash.update(next.value.part.value)
  }
  return hash.digest('hex')
}

function fetched(host: FakeHostState, { login: _, ...said }: FakeImage) {
  const template = `oci-${said.digest.replace(/^.*sha256:/, '')}-amd64`
  host.fetched.add(template)
  return { ...said, template }
}
