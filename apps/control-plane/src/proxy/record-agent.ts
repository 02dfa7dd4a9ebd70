import type { IncomingMessage, ServerResponse } from 'node:http'
import { gunzipSync } from 'node:zlib'
import { type DescMessage, fromBinary, fromJson, type MessageShape } from '@bufbuild/protobuf'
import { queryText } from '@wrenn/base'
import { StartRequestSchema, StartResponseSchema } from '@wrenn/protocol/guest'
import type { Principal } from '../domain/accounts/index.js'
import type { AccessLog, RecordAccess } from '../domain/audit/index.js'
import type { CapsuleRef } from '../domain/capsules/index.js'
import { commandLine, endDetails } from '../domain/commands/index.js'
import type { AccessActor } from '../store/audit-access.js'
import { type Envelope, EnvelopeReader } from './envelopes.js'

const START = 'POST /process.Process/Start'
/** What the routes of the guest agent do, as entries call it; those that tell of the agent itself are in none. */
const actions: Readonly<Record<string, Parameters<RecordAccess>[0]>> = {
  'GET /files': 'capsule.read_file',
  'POST /files': 'capsule.write_file',
  [START]: 'capsule.exec',
  'POST /process.Process/SendSignal': 'capsule.signal_process',
  'POST /filesystem.Filesystem/ListDir': 'capsule.list_files',
  'POST /filesystem.Filesystem/Stat': 'capsule.stat_file',
  'POST /filesystem.Filesystem/MakeDir': 'capsule.make_dir',
  'POST /filesystem.Filesystem/Move': 'capsule.move_file',
  'POST /filesystem.Filesystem/Remove': 'capsule.remove_file',
}
/** Of the message that starts a process, as it comes and unpacked; its environment may be 256 KiB. */
const MAX_START_BYTES = 2 ** 20
/** The end of a process takes a few bytes. */
const MAX_END_BYTES = 2 ** 10
/** Packed messages of one answer that are read. */
const MAX_UNPACKED = 64

/** A request to the guest agent of a capsule that was let through. */
interface Admitted {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly capsule: CapsuleRef
  readonly path: string
  /** `undefined`: it has a token of the capsule. */
  readonly principal: Principal | undefined
  /** Where it comes from. */
  readonly ip: string
}

/**
 * Notes what a client asks the guest agent itself for. A command is read out of the stream that starts it, and noted when it begins and when
 * it ends; of other calls the bodies pass unread.
 * @returns what is to see the answer
 */
export async function recordAgentRequest(
  admitted: Admitted,
  accessLog: Pick<AccessLog, 'recorderFor'>,
): Promise<((answer: IncomingMessage) => void) | undefined> {
  const { request, response, capsule, path, principal, ip } = admitted
  const [route = '', query = ''] = path.split('?', 2)
  const action = actions[`${request.method} ${route}`]
  if (action === undefined) return undefined
  const record = await accessLog.recorderFor(capsule, actorOf(principal, ip))
  if (record === undefined) return undefined
  if (`${request.method} ${route}` === START) return recordCommand(request, response, record)
  const file = route === '/files' ? queryText(query) : undefined
  const about = { through: 'e2b', path: file?.get('path') ?? undefined, user: file?.get('username') ?? undefined }
  let sent = 0
  const startedAt = performance.now()
  response.once('close', () => {
    const bytes = { 'capsule.read_file': sent, 'capsule.write_file': request.headers['content-length'] }[action]
    record(action, outcomeOf(response), { ...about, ...endOf(response, startedAt), bytes })
  })
  return (answer) => {
    answer.on('data', ({ length }: Uint8Array) => {
      sent += length
    })
  }
}

function recordCommand(request: IncomingMessage, response: ServerResponse, record: RecordAccess) {
  const startedAt = performance.now()
  let command: string | undefined
  let ended: Parameters<RecordAccess>[2] = { detached: 'true' }
  let outputBytes = 0
  let unreadable: string | undefined
  let isRead = false
  const starts = new EnvelopeReader(MAX_START_BYTES, (envelope) => {
    // The guest agent reads the first message alone.
    if (isRead) return
    isRead = true
    request.off('data', onChunk)
    const { process } = read(StartRequestSchema, envelope, request, MAX_START_BYTES) ?? {}
    command = process === undefined ? undefined : commandLine(process.cmd, process.args)
    unreadable = command === undefined ? 'true' : undefined
    record('capsule.exec', 'accepted', { through: 'e2b', command, unreadable })
  })
  const onChunk = (chunk: Uint8Array): void => {
    if (!isRead) starts.push(chunk)
  }
  request.on('data', onChunk)
  // Until it is passed on.
  request.pause()
  response.once('close', () => {
    const details = {
      through: 'e2b',
      command,
      unreadable,
      ...endOf(response, startedAt),
      output_bytes: outputBytes,
      ...ended,
    }
    record('capsule.exec', outcomeOf(response), details)
  })
  return (answer: IncomingMessage): void => {
    let mayUnpack = MAX_UNPACKED
    const events = new EnvelopeReader(MAX_END_BYTES, (envelope) => {
      // Each costs time of everybody's, and a guest can send any number of small ones.
      if (envelope.isCompressed && mayUnpack-- <= 0) {
        outputBytes += envelope.length
        return
      }
      const event = read(StartResponseSchema, envelope, answer, MAX_END_BYTES)?.event?.event
      if (event?.case === 'end') ended = endDetails(event.value)
      else if (event?.case === 'data') outputBytes += event.value.output.value?.length ?? 0
      // Long, and so output.
      else if (event === undefined) outputBytes += envelope.length
    })
    answer.on('data', (chunk: Uint8Array) => events.push(chunk))
  }
}

/** Nothing for what is no such message: the guest agent answers that. */
function read<T extends DescMessage>(
  schema: T,
  envelope: Envelope,
  { headers }: IncomingMessage,
  maxBytes: number,
): MessageShape<T> | undefined {
  try {
    const bytes = unpacked(envelope, headers['connect-content-encoding'], maxBytes)
    if (bytes === undefined) return undefined
    // As the guest agent takes it.
    const type = headers['content-type']?.split(';', 1)[0]?.trim()
    if (type !== 'application/connect+json') return fromBinary(schema, bytes)
    return fromJson(schema, JSON.parse(Buffer.from(bytes).toString()), { ignoreUnknownFields: true })
  } catch {
    return undefined
  }
}

/** @throws RangeError for what is longer than `maxBytes` unpacked, and zlib's errors for what is none */
function unpacked(
  { bytes, isCompressed }: Envelope,
  encoding: string | string[] | undefined,
  maxBytes: number,
): Uint8Array | undefined {
  if (bytes === undefined || !isCompressed || encoding === undefined || encoding === 'identity') return bytes
  // The guest agent knows no other.
  return encoding === 'gzip' ? gunzipSync(bytes, { maxOutputLength: maxBytes }) : undefined
}

function outcomeOf({ statusCode }: ServerResponse): 'success' | 'failure' {
  return statusCode < 400 ? 'success' : 'failure'
}

function endOf({ statusCode, writableFinished }: ServerResponse, startedAt: number) {
  const durationMs = Math.round(performance.now() - startedAt)
  return { status: statusCode, duration_ms: durationMs, cut: writableFinished ? undefined : 'true' }
}

function actorOf(principal: Principal | undefined, ip: string): AccessActor {
  if (principal === undefined) return { kind: 'token', ip }
  const { kind, id, name } = principal
  return { kind, id, name, requestId: '', ip }
}
