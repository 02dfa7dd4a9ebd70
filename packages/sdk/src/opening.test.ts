import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { capsule, FakeServer, ID, KEY, sendJson } from './fake-server.fixture.js'
import { type Capsule, InvalidStateError, type WebSocketConstructor, Wrenn } from './index.js'

let server: FakeServer
let found: Capsule

beforeEach(async () => {
  server = await new FakeServer().start()
  server.handler = (_seen, response) => sendJson(response, capsule('running'))
  server.socketHandler = (socket, first) => {
    for (const type of ['start', 'started']) socket.send(JSON.stringify({ type, pid: 7, tag: first.tag }))
    socket.send(JSON.stringify({ type: 'exit', exit_code: 3 }))
  }
  const webSocket = WebSocket as unknown as WebSocketConstructor // proven by the tests below
  found = await new Wrenn({ apiUrl: server.url, apiKey: KEY, webSocket }).capsules.get(ID)
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

describe('a stream that is being opened', () => {
  it('can be awaited, or read at once', async () => {
    expect((await found.stream('x')).pid).toBe(7)
    for (const open of [found.stream('x'), found.attach('x'), found.pty(), found.attachPty('x')]) {
      const types: string[] = []
      for await (const { type } of open) types.push(type)
      expect(types).toEqual(['exit'])
    }
  })

  it('says what was forgotten when it is used as if it were open', async () => {
    const stream = found.stream('cat', { stdin: true })
    // @ts-expect-error The compiler says so too.
    expect(() => stream.write('x')).toThrow(
      new TypeError('capsule.stream(…) is a promise: write `(await capsule.stream(…)).write`.'),
    )
    const terminal = found.pty()
    // @ts-expect-error The compiler says so too.
    expect(() => terminal.resize(80, 24)).toThrow('(await capsule.pty(…)).resize')
    // @ts-expect-error The compiler says so too.
    expect(() => terminal.tag).toThrow(TypeError)
    await Promise.all([stream, terminal])
  })

  it('fails in the loop with the reason why it cannot be opened', async () => {
    server.socketHandler = (socket) =>
      socket.send(JSON.stringify({ type: 'error', data: 'paused', code: 'invalid_state', fatal: true }))
    const read = async (): Promise<void> => {
      for await (const _ of found.stream('x'));
    }
    await expect(read()).rejects.toBeInstanceOf(InvalidStateError)
  })
})
