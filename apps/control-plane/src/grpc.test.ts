import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type ClientHttp2Session, connect, constants, createServer, type Http2Server } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import {
  Client,
  credentials,
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type ServiceError,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js'
import { UndoStack } from '@wrenn/base'
import { type Credentials, createAuthority, issueCertificate } from '@wrenn/certificates'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Platform, startPlatform } from './testing/harness.js'
import { serve } from './testing/proxied.js'

const DOMAIN = 'sbx.test'
const undo = new UndoStack()
let authority: Credentials
let platform: Platform
let id: string
let port: number
let client: Client

const same = (bytes: Buffer): Buffer => bytes
const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  ...{ path: `/test.Echo/${name}`, requestStream, responseStream, originalName: name },
  ...{ requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same },
})
const service = {
  unary: method('Unary', false, false),
  all: method('All', true, true),
  fail: method('Fail', false, false),
  hang: method('Hang', false, true),
} satisfies ServiceDefinition

/** How calls of `hang` have ended. */
const cancelled: string[] = []

async function startService(): Promise<Server> {
  const server = new Server({ 'grpc.max_receive_message_length': -1 })
  server.addService(service, {
    unary: (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => {
      const trailers = new Metadata()
      trailers.set('x-trailer', 'at the end')
      const first = new Metadata()
      first.set('x-seen', JSON.stringify(call.metadata.getMap()))
      call.sendMetadata(first)
      done(null, call.request, trailers)
    },
    all: (call: ServerDuplexStream<Buffer, Buffer>) =>
      call.on('data', (bytes: Buffer) => call.write(bytes)).on('end', () => call.end()),
    fail: (_call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) =>
      done({ code: status.DATA_LOSS, details: 'it is ümlaut' }),
    hang: (call: ServerWritableStream<Buffer, Buffer>) => {
      call.write(Buffer.from('begun'))
      call.on('cancelled', () => cancelled.push('cancelled'))
    },
  })
  port = await new Promise((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  )
  return server
}

beforeAll(async () => {
  authority = await createAuthority('Test', [DOMAIN])
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-grpc-'))
  await undo.defer(() => rm(dir, { recursive: true }))
  const { cert, key } = await issueCertificate(authority, [DOMAIN])
  const files = { cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem') }
  await writeFile(files.cert, cert)
  await writeFile(files.key, key)
  platform = await startPlatform({
    env: { WRENN_TLS_PORT: '0', WRENN_TLS_CERT: files.cert, WRENN_TLS_KEY: files.key, WRENN_PROXY_DOMAIN: DOMAIN },
  })
  await undo.defer(() => platform[Symbol.asyncDispose]())
  const server = await startService()
  await undo.defer(() => server.forceShutdown())
}, 60_000)
afterAll(() => undo[Symbol.asyncDispose]())

beforeEach(async () => {
  id = (await platform.create({})).id
  client = clientOf(port)
})
afterEach(async () => {
  client.close()
  await platform.call('DELETE', `/v1/capsules/${id}`)
})

const nameOf = (at: number): string => `${at}-${id}.${DOMAIN}`

function clientOf(at: number): Client {
  return new Client(`127.0.0.1:${platform.tlsPort}`, credentials.createSsl(Buffer.from(authority.cert)), {
    'grpc.ssl_target_name_override': nameOf(at),
    'grpc.default_authority': `${nameOf(at)}:${platform.tlsPort}`,
    'grpc.max_receive_message_length': -1,
    'grpc.enable_retries': 0,
  })
}

interface Outcome {
  readonly error: ServiceError | null
  readonly answer: Buffer | undefined
  readonly headers: Metadata
  readonly trailers: Metadata
}

async function call(path: string, message: Buffer, metadata = new Metadata(), through = client): Promise<Outcome> {
  return await new Promise((resolve) => {
    let [headers, trailers] = [new Metadata(), new Metadata()]
    let answer: Outcome | undefined
    const made = through.makeUnaryRequest(path, same, same, message, metadata, (error, value) => {
      answer = { error, answer: value, headers, trailers }
      if (error !== null) resolve({ ...answer, trailers: error.metadata })
    })
    made.on('metadata', (given) => {
      headers = given
    })
    made.on('status', ({ metadata: given }) => {
      trailers = given
      if (answer?.error === null) resolve({ ...answer, headers, trailers })
    })
  })
}

describe('gRPC to a service in a capsule, through TLS', () => {
  it('passes calls with metadata and trailers, and says where they come from', async () => {
    const metadata = new Metadata()
    metadata.set('x-mine', 'yes')
    metadata.set('x-bytes-bin', Buffer.from([0, 255, 1]))
    metadata.set('x-forwarded-for', '203.0.113.9')
    const { error, answer, headers, trailers } = await call('/test.Echo/Unary', Buffer.from('hello'), metadata)
    expect([error, answer?.toString()]).toEqual([null, 'hello'])
    const seen = JSON.parse(String(headers.get('x-seen')[0]))
    expect(seen).toMatchObject({ 'x-mine': 'yes', 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'https' })
    expect(seen['x-bytes-bin']).toEqual({ type: 'Buffer', data: [0, 255, 1] })
    expect(trailers.get('x-trailer')).toEqual(['at the end'])
  })

  it('passes the status of a call that failed as it is', async () => {
    const { error } = await call('/test.Echo/Fail', Buffer.alloc(0))
    expect(error).toMatchObject({ code: status.DATA_LOSS, details: 'it is ümlaut' })
    const unknown = await call('/test.Echo/Nothing', Buffer.alloc(0))
    expect(unknown.error?.code).toBe(status.UNIMPLEMENTED)
  })

  it('streams in both directions at once, message by message and in large ones', { timeout: 60_000 }, async () => {
    const stream = client.makeBidiStreamRequest('/test.Echo/All', same, same)
    const got: Buffer[] = []
    const next = () => new Promise<Buffer>((resolve) => stream.once('data', resolve))
    for (const word of ['one', 'two', 'three']) {
      const echoed = next()
      stream.write(Buffer.from(word))
      expect((await echoed).toString()).toBe(word)
    }
    stream.on('data', (bytes: Buffer) => got.push(bytes))
    const large = Buffer.alloc(8 * 2 ** 20, 'x')
    for (let n = 0; n < 3; n++) stream.write(large)
    stream.end()
    await new Promise((resolve) => stream.once('end', resolve))
    expect(got.map((bytes) => bytes.equals(large))).toEqual([true, true, true])
  })

  it('streams a lot in many calls of one connection, both ways at once', { timeout: 60_000 }, async () => {
    const [part, parts] = [Buffer.alloc(2 ** 18, 'y'), 8]
    const echo = async (): Promise<number> => {
      const stream = client.makeBidiStreamRequest('/test.Echo/All', same, same)
      let bytes = 0
      stream.on('data', (given: Buffer) => {
        bytes += given.length
      })
      for (let n = 0; n < parts; n++) stream.write(part)
      stream.end()
      await new Promise((resolve) => stream.once('end', resolve))
      return bytes
    }
    const echoed = await Promise.all(Array.from({ length: 12 }, echo))
    expect(new Set(echoed)).toEqual(new Set([part.length * parts]))
  })

  it('serves many calls of one connection at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, n) => call('/test.Echo/Unary', Buffer.from(`${n}`))),
    )
    expect(answers.map(({ answer }) => answer?.toString())).toEqual(Array.from({ length: 200 }, (_, n) => `${n}`))
  })

  it('tells the service when the client gives a call up', async () => {
    cancelled.length = 0
    const stream = client.makeServerStreamRequest('/test.Echo/Hang', same, same, Buffer.alloc(0))
    stream.on('error', () => {})
    await new Promise((resolve) => stream.once('data', resolve))
    stream.cancel()
    await expect.poll(() => cancelled).toEqual(['cancelled'])
  })

  it('ends an open call when the capsule is paused, and goes on after it was resumed', async () => {
    const stream = client.makeServerStreamRequest('/test.Echo/Hang', same, same, Buffer.alloc(0))
    const failed = new Promise<ServiceError>((resolve) =>
      stream.once('error', (error) => resolve(error as ServiceError)),
    )
    await new Promise((resolve) => stream.once('data', resolve))
    await platform.call('POST', `/v1/capsules/${id}/pause`)
    expect((await failed).code).not.toBe(status.OK)
    await platform.until(id, 'paused')
    const asleep = await call('/test.Echo/Unary', Buffer.from('wake up'))
    expect(asleep.error?.code).toBe(status.FAILED_PRECONDITION)
    await platform.call('PATCH', `/v1/capsules/${id}`, { auto_resume: true })
    await expect
      .poll(async () => (await call('/test.Echo/Unary', Buffer.from('again'))).answer?.toString(), { timeout: 20_000 })
      .toBe('again')
  })

  it('says in words of gRPC what is wrong', async () => {
    const closed = await serve(() => {})
    const { port: nobody } = closed
    await closed[Symbol.asyncDispose]()
    const toNobody = clientOf(nobody)
    expect((await call('/test.Echo/Unary', Buffer.alloc(0), new Metadata(), toNobody)).error).toMatchObject({
      code: status.UNAVAILABLE,
      details: expect.stringContaining('port'),
    })
    toNobody.close()
    await using old = await serve((_request, response) => void response.end('HTTP/1.1 alone'))
    const toOld = clientOf(old.port)
    expect((await call('/test.Echo/Unary', Buffer.alloc(0), new Metadata(), toOld)).error).toMatchObject({
      code: status.UNAVAILABLE,
      details: expect.stringContaining('does not speak HTTP/2'),
    })
    toOld.close()
    await platform.call('DELETE', `/v1/capsules/${id}`)
    expect((await call('/test.Echo/Unary', Buffer.alloc(0))).error?.code).toBe(status.NOT_FOUND)
  })

  it('lets only those in whom the port is for', async () => {
    await platform.call('PATCH', `/v1/capsules/${id}`, { port_access: 'private' })
    const { error } = await call('/test.Echo/Unary', Buffer.alloc(0))
    expect(error?.code).toBe(status.PERMISSION_DENIED)
    const metadata = new Metadata()
    metadata.set('x-api-key', platform.key)
    const { headers } = await call('/test.Echo/Unary', Buffer.alloc(0), metadata)
    expect(JSON.parse(String(headers.get('x-seen')[0]))).not.toHaveProperty('x-api-key')
  })
})

describe('HTTP/2 by TLS', () => {
  const alpn = (servername: string, ALPNProtocols: string[]): Promise<string | false | null> =>
    new Promise((resolve, reject) => {
      const socket = connectTls({
        port: platform.tlsPort,
        host: '127.0.0.1',
        servername,
        ca: authority.cert,
        ALPNProtocols,
      })
      socket.once('secureConnect', () => {
        resolve(socket.alpnProtocol)
        socket.destroy()
      })
      socket.once('error', reject)
    })

  const open = (name: string): ClientHttp2Session =>
    connect(`https://${name}:${platform.tlsPort}`, {
      ca: authority.cert,
      servername: name,
      createConnection: () =>
        connectTls({
          ...{ port: platform.tlsPort, host: '127.0.0.1', servername: name, ca: authority.cert },
          ALPNProtocols: ['h2'],
        }),
    })

  const ask = (session: ClientHttp2Session, headers: Record<string, string>, body?: Buffer) =>
    new Promise<{ status: number; text: string }>((resolve, reject) => {
      const stream = session.request({ ':path': '/', ...headers }, { endStream: body === undefined })
      let [code, text] = [0, '']
      stream.on('response', (answer) => {
        code = answer[':status'] ?? 0
      })
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      stream.once('error', reject)
      stream.once('close', () => resolve({ status: code, text }))
      if (body !== undefined) stream.end(body)
    })

  it('is agreed on for ports alone, and by clients that know nothing else', async () => {
    const name = nameOf(port)
    expect(await alpn(name, ['h2'])).toBe('h2')
    expect(await alpn(name, ['h2', 'http/1.1'])).toBe('http/1.1')
    expect(await alpn(`api.${DOMAIN}`, ['http/1.1', 'h2'])).toBe('http/1.1')
    await expect(alpn(`api.${DOMAIN}`, ['h2'])).rejects.toThrow(/alert/i)
    await expect(alpn('', ['h2'])).rejects.toThrow(/alert/i)
  })

  it('leads to nothing but the services of capsules', async () => {
    const session = open(nameOf(port))
    const key = { 'x-api-key': platform.key }
    for (const elsewhere of [`api.${DOMAIN}`, 'localhost', nameOf(49_983)]) {
      const { status: code, text } = await ask(session, { ':authority': elsewhere, ':path': '/v1/capsules', ...key })
      expect([elsewhere, code, JSON.parse(text).error?.code ?? JSON.parse(text).code]).toEqual([
        elsewhere,
        501,
        'not_supported',
      ])
    }
    const twoHosts = await ask(session, { ':authority': nameOf(port), host: `api.${DOMAIN}` })
    expect(twoHosts.status).toBe(400)
    session.destroy()
  })

  it('carries what is no gRPC as well, of two services by one connection', async () => {
    const servers: Http2Server[] = []
    const portOf = async (word: string): Promise<number> => {
      const server = createServer((request, response) => {
        request
          .resume()
          .on('end', () => response.end(`${word} ${request.method} ${request.headers['x-forwarded-proto']}`))
      })
      servers.push(server)
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      return (server.address() as AddressInfo).port
    }
    const [first, second] = [await portOf('first'), await portOf('second')]
    const session = open(nameOf(first))
    expect(await ask(session, { ':authority': nameOf(first) })).toEqual({ status: 200, text: 'first GET https' })
    const body = { ':authority': nameOf(second), ':method': 'POST' }
    expect(await ask(session, body, Buffer.alloc(2 ** 20))).toEqual({ status: 200, text: 'second POST https' })
    session.destroy()
    for (const server of servers) server.close()
  })

  it('opens one connection to a service for requests that come together, ends it with the client, and takes no pushes', async () => {
    const server = createServer((request, response) => void response.end(String(request.stream.pushAllowed)))
    let [opened, closed] = [0, 0]
    server.on('session', (session) => {
      opened++
      session.once('close', () => closed++)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const name = nameOf((server.address() as AddressInfo).port)
    const session = open(name)
    const answers = await Promise.all(Array.from({ length: 50 }, () => ask(session, { ':authority': name })))
    expect(new Set(answers.map(({ text }) => text))).toEqual(new Set(['false']))
    expect(opened).toBe(1)
    session.destroy()
    await expect.poll(() => closed).toBe(1)
    server.close()
  })

  it('survives clients that break off, and services that reset', async () => {
    const server = createServer()
    server.on('stream', (stream, headers) => {
      stream.on('error', () => {})
      if (headers[':path'] === '/reset') stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM)
      else stream.respond({ ':status': 200 })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const name = nameOf((server.address() as AddressInfo).port)
    for (let n = 0; n < 20; n++) {
      const session = open(name)
      session.on('error', () => {})
      const streams = ['/', '/', '/reset'].map((path) => session.request({ ':path': path, ':authority': name }))
      for (const stream of streams) stream.on('error', () => {})
      await new Promise((resolve) => streams[0]?.once('response', resolve))
      if (n % 2 === 0) session.destroy()
      else streams[1]?.close(constants.NGHTTP2_CANCEL)
      session.close()
      session.destroy()
    }
    expect((await call('/test.Echo/Unary', Buffer.from('still there'))).answer?.toString()).toBe('still there')
    server.close()
  })
})
