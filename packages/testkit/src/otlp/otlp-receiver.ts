import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import { fromBinary, fromJson, type JsonValue } from '@bufbuild/protobuf'
import { waitFor } from '@wrenn/base'
import { type Attribute, type Export, ExportSchema } from './gen/otlp_pb.js'

/** A span as it was sent. Ids are hexadecimal; a root has no `parentId`. */
export interface ReceivedSpan {
  readonly service: string
  readonly name: string
  readonly kind: 'internal' | 'server' | 'client' | 'other'
  readonly traceId: string
  readonly spanId: string
  readonly parentId: string
  readonly startNs: bigint
  readonly endNs: bigint
  readonly failed: boolean
  readonly message: string
  readonly fields: Readonly<Record<string, unknown>>
  readonly resource: Readonly<Record<string, unknown>>
}

const kinds: Readonly<Record<number, ReceivedSpan['kind']>> = { 1: 'internal', 2: 'server', 3: 'client' }
const ERROR = 2

/**
 * Takes spans as a collector does (OTLP/HTTP 1.x, `POST /v1/traces`, protobuf and JSON) and keeps them.
 */
export class OtlpReceiver implements AsyncDisposable {
  readonly spans: ReceivedSpan[] = []
  /** Each request's headers and bytes, as they came. */
  readonly requests: { readonly headers: IncomingMessage['headers']; readonly body: Buffer }[] = []
  /** What it answers. @default 200 */
  status = 200
  readonly #server: Server

  private constructor() {
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        const { status, answer } = this.#take(request, Buffer.concat(chunks))
        response.writeHead(status, { 'content-type': request.headers['content-type'] ?? '' }).end(answer)
      })
    })
  }

  static async start(port = 0): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver()
    await new Promise<void>((resolve) => receiver.#server.listen(port, '127.0.0.1', resolve))
    return receiver
  }

  /** For `OTEL_EXPORTER_OTLP_ENDPOINT`. */
  get url(): string {
    const { port } = this.#server.address() as AddressInfo // it listens over TCP
    return `http://127.0.0.1:${port}`
  }

  /** The first span that is as wanted, once it has come. */
  async span(wanted: (span: ReceivedSpan) => boolean, what = 'a span'): Promise<ReceivedSpan> {
    return await waitFor(async () => this.spans.find(wanted), { timeoutMs: 20_000, what })
  }

  childrenOf({ spanId, traceId }: ReceivedSpan): ReceivedSpan[] {
    return this.spans.filter((span) => span.traceId === traceId && span.parentId === spanId)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #take(request: IncomingMessage, sent: Buffer): { readonly status: number; readonly answer: string } {
    if (request.method !== 'POST' || request.url !== '/v1/traces') return { status: 404, answer: '' }
    const body = request.headers['content-encoding'] === 'gzip' ? gunzipSync(sent) : sent
    this.requests.push({ headers: request.headers, body })
    if (this.status !== 200) return { status: this.status, answer: '' }
    if (request.headers['content-type'] === 'application/x-protobuf') {
      this.#keep(fromBinary(ExportSchema, body))
      return { status: 200, answer: '' } // as protobuf has a response that says nothing
    }
    if (request.headers['content-type'] !== 'application/json') return { status: 415, answer: '' }
    const json = withBase64Ids(JSON.parse(body.toString()))
    this.#keep(fromJson(ExportSchema, json, { ignoreUnknownFields: true }))
    return { status: 200, answer: '{}' }
  }

  #keep({ resourceSpans }: Export): void {
    for (const { resource, scopeSpans } of resourceSpans) {
      const of = fieldsOf(resource?.attributes ?? [])
      for (const span of scopeSpans.flatMap(({ spans }) => spans)) {
        this.spans.push({
          service: String(of['service.name']),
          name: span.name,
          kind: kinds[span.kind] ?? 'other',
          traceId: hex(span.traceId),
          spanId: hex(span.spanId),
          parentId: hex(span.parentSpanId),
          startNs: span.startTimeUnixNano,
          endNs: span.endTimeUnixNano,
          failed: span.status?.code === ERROR,
          message: span.status?.message ?? '',
          fields: fieldsOf(span.attributes),
          resource: of,
        })
      }
    }
  }
}

function fieldsOf(attributes: readonly Attribute[]): Record<string, unknown> {
  return Object.fromEntries(
    attributes.map(({ key, value }) => {
      const held = value?.value.value
      return [key, typeof held === 'bigint' ? Number(held) : held]
    }),
  )
}

/** The one thing in which OTLP's JSON is not that of protobuf: its ids are hexadecimal. */
function withBase64Ids(value: unknown): JsonValue {
  const text = JSON.stringify(value, (key, inner: unknown) =>
    /^(?:traceId|spanId|parentSpanId)$/.test(key) && typeof inner === 'string'
      ? Buffer.from(inner, 'hex').toString('base64')
      : inner,
  )
  return JSON.parse(text)
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}
