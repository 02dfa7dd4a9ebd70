import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { capsule, FakeServer, ID, KEY, sendJson } from './fake-server.fixture.js'
import {
  AuthenticationError,
  CapsuleNotFoundError,
  ConnectionError,
  FileNotFoundError,
  InvalidStateError,
  type ProcessEvent,
  TimeoutError,
  type WebSocketConstructor,
  Wrenn,
} from './index.js'

let server: FakeServer
let wrenn: Wrenn

beforeEach(async () => {
  server = await new FakeServer().start()
  const webSocket = WebSocket as unknown as WebSocketConstructor // proven by the tests below
  wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY, webSocket })
})

afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

const error = (code: string) => ({ error: { code, message: `it is ${code}`, hint: 'do this', requestId: 'req-1' } })

async function running() {
  server.handler = (_seen, response) => sendJson(response, capsule('running'))
  return await wrenn.capsules.get(ID)
}

describe('an API key', () => {
  const list = async (apiKey: string) => {
    server.handler = (_seen, response) => sendJson(response, [])
    return await new Wrenn({ apiUrl: server.url, apiKey }).templates.list()
  }

  it('is sent without the white space around it', async () => {
    await list(` ${KEY}\r\n`)
    expect(server.seen.at(-1)?.headers['x-api-key']).toBe(KEY)
  })

  it.each([
    ['a line break', `${KEY}\n${KEY}`],
    ['a space', `export ${KEY}`],
    ['a character that no key has', `\u201c${KEY}\u201d`],
  ])('with %s in it is refused by name, and is in no message', async (what, key) => {
    const refusal = await list(key).then(
      () => undefined,
      (error: unknown) => error,
    )
    expect(refusal).toBeInstanceOf(AuthenticationError)
    expect(refusal).toMatchObject({ code: 'unauthorized', message: `The API key has ${what} in it.` })
    expect(String(refusal)).not.toContain(KEY)
    expect(server.seen).toEqual([])
  })
})

describe('capsules', () => {
  it('are created under one idempotency key, however often the request had to be repeated', async () => {
    let creates = 0
    server.handler = (seen, response) => {
      if (seen.method !== 'POST') return sendJson(response, capsule('running'))
      creates += 1
      if (creates < 3) return sendJson(response, error('host_unavailable'), 503, { 'retry-after': '0' })
      sendJson(response, capsule('starting'), 201)
    }
    const made = await wrenn.capsules.create({ memoryMib: 256, labels: { a: 'b' }, idleTimeoutMs: 1500 })
    expect(made.info.state).toBe('running')
    const posts = server.seen.filter((seen) => seen.method === 'POST')
    expect(new Set(posts.map((seen) => seen.headers['idempotency-key'])).size).toBe(1)
    expect(JSON.parse(posts[0]?.body ?? '')).toEqual({
      memory_mb: 256,
      labels: { a: 'b' },
      envs: {},
      timeout_sec: 2,
      auto_resume: true,
    })
    expect(posts[0]?.headers['x-api-key']).toBe(KEY)
  })

  it('that fail to start are destroyed, and say why', async () => {
    server.handler = (seen, response) => {
      if (seen.method === 'DELETE') response.writeHead(204).end()
      else sendJson(response, capsule('error', { exit: { cause: 'create_failed', message: 'no space' } }), 201)
    }
    await expect(wrenn.capsules.create()).rejects.toThrow('no space')
    expect(server.seen.at(-1)?.method).toBe('DELETE')
  })

  it('are listed page after page', async () => {
    server.handler = (seen, response) => {
      const last = seen.path.includes('cursor=two')
      sendJson(response, [capsule('running', { name: last ? 'b' : 'a' })], 200, last ? {} : { 'x-next-token': 'two' })
    }
    const names: (string | undefined)[] = []
    for await (const info of wrenn.capsules.list({ states: ['running'] })) names.push(info.name)
    expect(names).toEqual(['a', 'b'])
    expect(server.seen[0]?.path).toContain('status=running')
  })

  it('are destroyed by `await using`', async () => {
    {
      await using _capsule = await running()
      server.handler = (_seen, response) => response.writeHead(204).end()
    }
    expect(server.seen.at(-1)).toMatchObject({ method: 'DELETE', path: `/v1/capsules/${ID}` })
  })
})

describe('a key that changes', () => {
  it('is asked for before each request', async () => {
    let count = 0
    const changing = new Wrenn({ apiUrl: server.url, apiKey: async () => `wra_${++count}` })
    server.handler = (_seen, response) => sendJson(response, [])
    await changing.templates.list()
    await changing.templates.list()
    expect(server.seen.map(({ headers }) => headers['x-api-key'])).toEqual(['wra_1', 'wra_2'])
  })
})

describe('errors', () => {
  it.each([
    ['capsule_not_found', 404, CapsuleNotFoundError],
    ['unauthorized', 401, AuthenticationError],
    ['invalid_state', 409, InvalidStateError],
  ] as const)('%s has a class of its own and keeps code, status, hint and request id', async (code, status, Class) => {
    server.handler = (_seen, response) => sendJson(response, error(code), status)
    const thrown = await wrenn.capsules.get(ID).catch((reason: unknown) => reason)
    expect(thrown).toBeInstanceOf(Class)
    expect(thrown).toMatchObject({ code, status, hint: 'do this', requestId: 'req-1' })
    expect(server.seen).toHaveLength(1)
  })

  it('of a server that is not there say so', async () => {
    const nobody = new Wrenn({ apiUrl: 'http://127.0.0.1:1' })
    await expect(nobody.templates.list()).rejects.toBeInstanceOf(ConnectionError)
  })

  it('of an answer that does not come name the option', async () => {
    server.handler = () => {}
    await expect(wrenn.templates.list({ requestTimeoutMs: 30 })).rejects.toThrow(TimeoutError)
    await expect(wrenn.templates.list({ requestTimeoutMs: 30 })).rejects.toThrow('requestTimeoutMs')
  })

  it('are the reason of the signal when the caller aborts', async () => {
    server.handler = () => {}
    const reason = new Error('no longer wanted')
    const signal = AbortSignal.abort(reason)
    await expect(wrenn.templates.list({ signal })).rejects.toBe(reason)
  })

  it('never repeat a command', async () => {
    const found = await running()
    server.handler = (_seen, response) => sendJson(response, error('guest_error'), 502)
    await expect(found.exec('true')).rejects.toMatchObject({ code: 'guest_error' })
    expect(server.seen.filter((seen) => seen.path.endsWith('/exec'))).toHaveLength(1)
  })
})

describe('exec', () => {
  it('takes a shell line or a program, and gives text and exact bytes', async () => {
    const found = await running()
    const answer = { exit_code: 3, duration_ms: 5, timed_out: false, truncated: false, stderr: '' }
    server.handler = (_seen, response) =>
      sendJson(response, { ...answer, stdout: Buffer.from([0xff, 0x41]).toString('base64'), encoding: 'base64' })
    const result = await found.exec('a | b', { timeoutMs: 1500, stdin: new Uint8Array([0, 1]) })
    expect(result).toMatchObject({ stdout: '\ufffdA', stdoutBytes: new Uint8Array([0xff, 0x41]), exitCode: 3 })
    server.handler = (_seen, response) =>
      sendJson(response, { ...answer, stdout: Buffer.from('\uFEFFA').toString('base64'), encoding: 'base64' })
    const body = JSON.parse(server.seen.at(-1)?.body ?? '')
    expect(server.seen.at(-1)?.headers.prefer).toBe('processing') // or fetch gives up after five minutes
    expect(body).toMatchObject({ cmd: '/bin/sh', args: ['-c', 'a | b'], timeout_sec: 1.5, stdin: 'AAE=' })
    expect((await found.exec('marked')).stdout).toBe('\uFEFFA')
    await found.exec(['ls', '-l'])
    expect(JSON.parse(server.seen.at(-1)?.body ?? '')).toMatchObject({ cmd: 'ls', args: ['-l'] })
  })
})

describe('files', () => {
  it('are sent and read as they are, and a missing one is a question with an answer', async () => {
    const found = await running()
    server.handler = (_seen, response) => sendJson(response, { path: '/a b', bytes: 2 })
    expect(await found.files.write('/a b', 'hi', { user: 'me' })).toEqual({ sizeBytes: 2 })
    expect(server.seen.at(-1)).toMatchObject({ method: 'PUT', body: 'hi' })
    expect(server.seen.at(-1)?.path).toContain('path=%2Fa+b&user=me')
    server.handler = (_seen, response) => response.writeHead(200).end('hello')
    expect(await found.files.readText('/a')).toBe('hello')
    server.handler = (_seen, response) => response.writeHead(200).end('\uFEFFmarked')
    expect(await found.files.readText('/a')).toBe('\uFEFFmarked')
    server.handler = (_seen, response) => sendJson(response, error('file_not_found'), 404)
    expect(await found.files.exists('/a')).toBe(false)
    await expect(found.files.read('/a')).rejects.toBeInstanceOf(FileNotFoundError)
  })
})

async function collect(events: AsyncIterable<ProcessEvent>): Promise<{ text: string; exitCode: number | undefined }> {
  let text = ''
  let exitCode: number | undefined
  for await (const event of events) {
    if (event.type === 'exit') exitCode = event.exitCode
    else if (event.type !== 'lost') text += Buffer.from(event.data).toString()
  }
  return { text, exitCode }
}

const stdout = (text: string, offset: number) =>
  JSON.stringify({ type: 'stdout', data: Buffer.from(text).toString('base64'), encoding: 'base64', offset })

describe('stream', () => {
  it('continues from the next byte when the connection drops, twice', async () => {
    const found = await running()
    const resumed: string[] = []
    server.socketHandler = (socket, frame, path) => {
      if (frame.type === 'start') {
        socket.send(JSON.stringify({ type: 'start', pid: 7, tag: frame.tag }))
        socket.send(stdout('one ', 0), () => socket.terminate())
        return
      }
      resumed.push(new URL(path, server.url).searchParams.get('from_offset') ?? '')
      if (resumed.length === 1) return void socket.send(stdout('two ', 4), () => socket.terminate())
      socket.send(stdout('three', 8))
      socket.send(JSON.stringify({ type: 'exit', exit_code: 5 }))
    }
    const states: string[] = []
    const process = await found.stream('x', { onConnection: (state) => states.push(state) })
    expect(process.pid).toBe(7)
    expect(await collect(process)).toEqual({ text: 'one two three', exitCode: 5 })
    expect(resumed).toEqual(['4', '8'])
    expect(states).toEqual(['lost', 'restored', 'lost', 'restored'])
    expect(process.exit?.exitCode).toBe(5)
  })

  it('sends and reads binary frames', async () => {
    const found = await running()
    server.socketHandler = (socket, frame) => {
      socket.send(JSON.stringify({ type: 'start', pid: 1, tag: frame.tag }))
      socket.on('message', (data: Buffer, isBinary) => {
        if (!isBinary) return
        const echo = Buffer.from(data)
        echo[0] = 1
        socket.send(echo)
        socket.send(JSON.stringify({ type: 'exit', exit_code: 0 }))
      })
    }
    const process = await found.stream(['cat'], { stdin: true })
    await process.write(new Uint8Array([0x68, 0x69]))
    expect(await collect(process)).toEqual({ text: 'hi', exitCode: 0 })
  })

  it('does not pretend that input arrived when the connection broke under it', async () => {
    const found = await running()
    server.socketHandler = (socket, frame) => {
      socket.send(JSON.stringify({ type: 'start', pid: 1, tag: frame.tag }))
      socket.on('message', () => socket.terminate())
    }
    const process = await found.stream(['cat'], { stdin: true })
    await process.write('lost?')
    await expect(collect(process)).rejects.toMatchObject({ code: 'connection_lost' })
  })

  it('throws the error of the stream with its code', async () => {
    const found = await running()
    server.socketHandler = (socket) => {
      socket.send(JSON.stringify({ type: 'error', data: 'no such directory', code: 'file_not_found', fatal: true }))
    }
    await expect(found.stream('x', { cwd: '/nowhere' })).rejects.toBeInstanceOf(FileNotFoundError)
  })

  it('kills what is left running when disposed', async () => {
    const found = await running()
    server.socketHandler = (socket, frame) => socket.send(JSON.stringify({ type: 'start', pid: 1, tag: frame.tag }))
    server.handler = (_seen, response) => response.writeHead(204).end()
    {
      await using _process = await found.stream('sleep 99', { tag: 'mine' })
    }
    expect(server.seen.at(-1)).toMatchObject({ method: 'DELETE' })
    expect(server.seen.at(-1)?.path).toContain('/processes/mine?signal=SIGKILL')
  })

  it('explains a refused handshake by asking for the capsule', async () => {
    const found = await running()
    server.handler = (_seen, response) => sendJson(response, capsule('stopped'))
    server.socketHandler = (socket) => socket.close()
    const refusing = new Wrenn({ apiUrl: server.url, apiKey: KEY, webSocket: RefusingSocket })
    const other = await refusing.capsules.get(found.id)
    await expect(other.stream('x')).rejects.toBeInstanceOf(InvalidStateError)
  })
})

/** A handshake that fails the way browsers tell it: without a reason. */
class RefusingSocket {
  binaryType = ''
  readonly bufferedAmount = 0
  readonly protocol = ''
  send(): void {}
  close(): void {}
  addEventListener(type: string, listener: (event: object) => void): void {
    if (type === 'error') queueMicrotask(() => listener({}))
  }
}

describe('pty', () => {
  it('comes back to the same terminal by its tag', async () => {
    const found = await running()
    const frames: Record<string, unknown>[] = []
    server.socketHandler = (socket, frame) => {
      frames.push(frame)
      const output = { type: 'output', data: Buffer.from('$ ').toString('base64'), offset: 0 }
      if (frame.type === 'start') {
        socket.send(JSON.stringify({ type: 'started', pid: 9, tag: frame.tag }))
        socket.send(JSON.stringify(output), () => socket.terminate())
      } else socket.send(JSON.stringify({ type: 'exit', exit_code: 0 }))
    }
    const pty = await found.pty({ cols: 100, rows: 30 })
    expect(await collect(pty)).toEqual({ text: '$ ', exitCode: 0 })
    expect(frames).toMatchObject([
      { type: 'start', cmd: '/bin/bash', cols: 100, rows: 30 },
      { type: 'connect', tag: pty.tag, from_offset: 2 },
    ])
  })
})
