import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { capsule, FakeServer, ID, KEY, sendJson } from './fake-server.fixture.js'
import { type Capsule, InvalidStateError, type ProcessEvent, type WebSocketConstructor, Wrenn } from './index.js'

let server: FakeServer
let found: Capsule
let state: string

beforeEach(async () => {
  server = await new FakeServer().start()
  const webSocket = WebSocket as unknown as WebSocketConstructor // proven by the tests below
  const wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY, webSocket })
  state = 'running'
  server.handler = (_seen, response) => sendJson(response, capsule(state))
  found = await wrenn.capsules.get(ID)
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

const frame = (value: object): string => JSON.stringify(value)
const stdout = (data: string, offset: number): string => frame({ type: 'stdout', data, offset })

async function textOf(events: AsyncIterable<ProcessEvent>): Promise<string> {
  let text = ''
  for await (const event of events) if ('data' in event) text += new TextDecoder().decode(event.data)
  return text
}

describe('a session whose capsule is paused', () => {
  it('hears of it from the server, in the stream, and only when somebody wants to know', async () => {
    const asked: (string | null)[] = []
    server.socketHandler = (socket, first, path) => {
      asked.push(new URL(path, server.url).searchParams.get('states'))
      socket.send(frame({ type: 'state', state: 'running' }))
      socket.send(frame({ type: 'start', pid: 7, tag: first.tag }))
      for (const now of ['pausing', 'paused', 'resuming', 'running']) socket.send(frame({ type: 'state', state: now }))
      socket.send(stdout('on', 0))
      socket.send(frame({ type: 'exit', exit_code: 0 }))
    }
    const told: string[] = []
    expect(await textOf(await found.stream('x', { onConnection: (what) => told.push(what) }))).toBe('on')
    expect(told).toEqual(['paused', 'resumed'])
    expect(await textOf(await found.stream('x'))).toBe('on')
    expect(asked).toEqual(['true', null])
  })
})

describe('a session whose connection broke', () => {
  it('waits for as long as the capsule is paused, and goes on at the next byte without having woken it', async () => {
    let asked = 0
    server.handler = (_seen, response) => {
      asked += 1
      if (asked === 2) state = 'running'
      sendJson(response, capsule(state))
    }
    const resumed: string[] = []
    server.socketHandler = (socket, first, path) => {
      if (first.type === 'start') {
        state = 'paused'
        socket.send(frame({ type: 'start', pid: 7, tag: first.tag }))
        return void socket.send(stdout('one ', 0), () => socket.terminate())
      }
      resumed.push(`${state} ${new URL(path, server.url).searchParams.get('from_offset')}`)
      socket.send(stdout('two', 4))
      socket.send(frame({ type: 'exit', exit_code: 0 }))
    }
    const told: string[] = []
    // No patience at all: only the pause is waited out.
    const process = await found.stream('x', { reconnectMs: 0, onConnection: (what) => told.push(what) })
    expect(await textOf(process)).toBe('one two')
    expect(resumed).toEqual(['running 4'])
    expect(told).toEqual(['lost', 'paused', 'resumed', 'restored'])
  })

  it('ends when the capsule has ended', async () => {
    server.socketHandler = (socket, first) => {
      state = 'stopped'
      socket.send(frame({ type: 'start', pid: 7, tag: first.tag }), () => socket.terminate())
    }
    const process = await found.stream('x')
    await expect(textOf(process)).rejects.toBeInstanceOf(InvalidStateError)
  })

  it('comes back when the stream was refused because of a pause that is over', async () => {
    let opened = 0
    server.socketHandler = (socket, first) => {
      opened += 1
      if (opened === 1) socket.send(frame({ type: 'start', pid: 7, tag: first.tag }), () => socket.terminate())
      else if (opened === 2) socket.send(frame({ type: 'error', data: 'paused', code: 'invalid_state', fatal: true }))
      else {
        socket.send(stdout('here', 0))
        socket.send(frame({ type: 'exit', exit_code: 0 }))
      }
    }
    expect(await textOf(await found.stream('x'))).toBe('here')
    expect(opened).toBe(3)
  })

  it('gives up when every new connection breaks at once', async () => {
    server.socketHandler = (socket, first) => {
      if (first.type === 'start') socket.send(frame({ type: 'start', pid: 7, tag: first.tag }))
      socket.send(frame({ type: 'error', data: 'gone', code: 'host_unavailable', fatal: true }))
    }
    const process = await found.stream('x', { reconnectMs: 300 })
    await expect(textOf(process)).rejects.toMatchObject({ code: 'host_unavailable' })
  })

  it('ends silently when it is disconnected while the capsule is paused', async () => {
    server.socketHandler = (socket, first) => {
      state = 'paused'
      socket.send(frame({ type: 'start', pid: 7, tag: first.tag }), () => socket.terminate())
    }
    const process = await found.stream('x', {
      onConnection: (what) => {
        if (what === 'paused') process.disconnect()
      },
    })
    expect(await textOf(process)).toBe('')
  })
})
