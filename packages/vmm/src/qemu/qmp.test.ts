import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { QmpClient, type QmpEvent } from './qmp.js'

const GREETING = { QMP: { version: {}, capabilities: [] } }

interface Request {
  readonly execute: string
  readonly id: number
  readonly arguments?: unknown
}

/** The server's side of the protocol, driven by the test. */
class FakeMonitor {
  readonly requests: Request[] = []
  readonly sockets: Socket[] = []
  readonly #server: Server
  /** What a command answers; `undefined` leaves it unanswered. */
  answer: (request: Request, socket: Socket) => object | undefined = () => ({ return: {} })
  greeting: object | undefined = GREETING

  constructor() {
    this.#server = createServer((socket) => this.#serve(socket))
  }

  listen(path: string): Promise<void> {
    return new Promise((resolve) => this.#server.listen(path, resolve))
  }

  close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    return new Promise((resolve) => this.#server.close(() => resolve()))
  }

  #serve(socket: Socket): void {
    this.sockets.push(socket)
    socket.on('error', () => {}) // the client may leave at any time
    if (this.greeting) socket.write(`${JSON.stringify(this.greeting)}\r\n`)
    createInterface(socket).on('line', (line) => {
      const request: Request = JSON.parse(line)
      this.requests.push(request)
      const answer = this.answer(request, socket)
      if (answer) socket.write(`${JSON.stringify({ ...answer, id: request.id })}\r\n`)
    })
  }
}

describe('QmpClient', () => {
  let folder: string
  let path: string
  let monitor: FakeMonitor
  let client: QmpClient | undefined

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'wrenn-qmp-'))
    path = join(folder, 'monitor.sock')
    monitor = new FakeMonitor()
    await monitor.listen(path)
  })
  afterEach(async () => {
    client?.close()
    client = undefined
    await monitor.close()
    await rm(folder, { recursive: true })
  })

  async function connect(): Promise<QmpClient> {
    client = await QmpClient.connect(path)
    return client
  }

  it('negotiates before the first command', async () => {
    const qmp = await connect()
    await qmp.execute('query-status')
    expect(monitor.requests.map((request) => request.execute)).toEqual(['qmp_capabilities', 'query-status'])
  })

  it('matches answers to commands by id, in whatever order they come', async () => {
    const held: { request: Request; socket: Socket }[] = []
    const qmp = await connect()
    monitor.answer = (request, socket) => {
      held.push({ request, socket })
      if (held.length === 2) {
        for (const { request: late, socket: to } of held.toReversed()) {
          to.write(`${JSON.stringify({ return: late.arguments, id: late.id })}\n`)
        }
      }
      return undefined
    }
    const both = Promise.all([qmp.execute('first', { n: 1 }), qmp.execute('second', { n: 2 })])
    expect(await both).toEqual([{ n: 1 }, { n: 2 }])
  })

  it('passes on events, also those cut across chunks, until told to stop', async () => {
    const seen: QmpEvent[] = []
    const qmp = await connect()
    const stop = qmp.onEvent((event) => seen.push(event))
    const line = `${JSON.stringify({ event: 'STOP', timestamp: {} })}\n${JSON.stringify({ event: 'SHUTDOWN', data: { reason: 'guest-reset' } })}\n`
    monitor.sockets[0]?.write(line.slice(0, 40))
    monitor.answer = () => undefined
    await qmp.execute('wait', undefined, { deadlineMs: 20 }).catch(() => {}) // the first part has arrived by now
    monitor.answer = () => ({ return: {} })
    monitor.sockets[0]?.write(line.slice(40))
    await qmp.execute('barrier')
    expect(seen).toEqual([
      { event: 'STOP', data: {} },
      { event: 'SHUTDOWN', data: { reason: 'guest-reset' } },
    ])
    stop()
    monitor.sockets[0]?.write(`${JSON.stringify({ event: 'RESUME' })}\n`)
    await qmp.execute('barrier')
    expect(seen).toHaveLength(2)
  })

  it("reports a refused command in QEMU's words", async () => {
    const qmp = await connect()
    monitor.answer = () => ({ error: { class: 'GenericError', desc: "Parameter 'value' is missing" } })
    await expect(qmp.execute('balloon')).rejects.toMatchObject({
      code: 'engine_failure',
      message: expect.stringContaining("balloon: Parameter 'value' is missing"),
    })
  })

  it('gives up on a command after its deadline and goes on with others', async () => {
    const qmp = await connect()
    monitor.answer = ({ execute }) => (execute === 'stuck' ? undefined : { return: 1 })
    await expect(qmp.execute('stuck', undefined, { deadlineMs: 10 })).rejects.toMatchObject({ code: 'engine_failure' })
    expect(await qmp.execute('fine')).toBe(1)
  })

  it('fails every waiting and every later command when the socket goes away', async () => {
    const qmp = await connect()
    monitor.answer = (_, socket) => {
      socket.destroy()
      return undefined
    }
    await expect(qmp.execute('quit')).rejects.toMatchObject({ code: 'engine_failure' })
    await qmp.closed
    await expect(qmp.execute('query-status')).rejects.toMatchObject({ code: 'engine_failure' })
  })

  it('breaks off when the peer does not speak QMP', async () => {
    const qmp = await connect()
    monitor.sockets[0]?.write('HTTP/1.1 400 Bad Request\n')
    await qmp.closed
    await expect(qmp.execute('query-status')).rejects.toThrow(/other than a JSON object/)
  })

  it('fails when the connection ends before the greeting', async () => {
    monitor.greeting = undefined
    const connecting = QmpClient.connect(path)
    const failed = expect(connecting).rejects.toMatchObject({ code: 'engine_failure' })
    while (monitor.sockets.length === 0) await new Promise((resolve) => setImmediate(resolve))
    monitor.sockets[0]?.destroy()
    await failed
  })

  it('says so when nobody listens', async () => {
    await expect(QmpClient.connect(join(folder, 'nobody.sock'))).rejects.toMatchObject({ code: 'engine_failure' })
  })
})
