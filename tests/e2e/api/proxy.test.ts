import { readFile, stat } from 'node:fs/promises'
import { request as ask, type IncomingMessage } from 'node:http'
import { describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { type TestCapsule, useCapsule, usePlatform } from '../harness/api.js'
import { pidsOf } from '../harness/platform.js'

/** In `/proc/net/tcp`. */
const ESTABLISHED = '01'

const { platform } = usePlatform()
const capsule = useCapsule()

/** A server of Python's standard library: says who asks, streams, and takes WebSockets by hand. */
const server = (host: string, port: number): string => `
import base64, hashlib, socket, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if self.headers.get('Upgrade') == 'websocket':
            digest = hashlib.sha1((self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()
            self.wfile.write(b'HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Accept: ' + base64.b64encode(digest) + b'\\r\\n\\r\\n')
            self.wfile.write(b'\\x81\\x05hello')
            self.rfile.read(1)
            self.close_connection = True
            return
        body = (self.path + ' ' + self.headers['Host'] + ' ' + self.headers['X-Forwarded-For']).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        size = 0
        while True:
            length = int(self.rfile.readline(), 16)
            size += len(self.rfile.read(length))
            self.rfile.readline()
            if length == 0: break
        body = str(size).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ':' in '${host}' else socket.AF_INET
Server(('${host}', ${port}), Handler).serve_forever()
`

async function listen(target: TestCapsule, host: string, port: number): Promise<void> {
  await target.background('exec python3 -c "$SERVER"', { envs: { SERVER: server(host, port) } })
  await expect.poll(async () => (await get(target, port)).status, { timeout: 120_000 }).toBe(200)
}

/** Users of this machine that have connections to a port of a capsule. */
async function connectionsTo(port: number): Promise<number[]> {
  const remote = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const rows = (await readFile('/proc/net/tcp', 'utf8')).split('\n').map((line) => line.trim().split(/\s+/))
  return rows.flatMap((row) => (row[2]?.endsWith(remote) && row[3] === ESTABLISHED ? [Number(row[7])] : []))
}

const name = (target: TestCapsule, port: number): string => `${port}-${target.id}.localhost:${platform.port}`

interface Answer {
  readonly status: number | undefined
  readonly code: string | string[] | undefined
  readonly text: string
}

async function get(target: TestCapsule, port: number, path = '/'): Promise<Answer> {
  return await answerTo('GET', target, port, path)
}

async function answerTo(
  method: string,
  target: TestCapsule,
  port: number,
  path: string,
  body?: Buffer,
): Promise<Answer> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const asked = ask(new URL(path, platform.url), { method, headers: { host: name(target, port) } }, resolve)
    asked.once('error', reject)
    if (body === undefined) asked.end()
    else {
      asked.write(body) // no length: chunked
      asked.end()
    }
  })
  const chunks: Buffer[] = []
  for await (const chunk of answer) chunks.push(chunk)
  const { statusCode: status, headers } = answer
  return { status, code: headers['wrenn-error-code'], text: Buffer.concat(chunks).toString() }
}

describe('the URL of a port', () => {
  it.each(['0.0.0.0', '127.0.0.1', '::1'])('leads to what listens on %s', async (host) => {
    const port = { '0.0.0.0': 8001, '127.0.0.1': 8002, '::1': 8003 }[host] ?? 0
    await listen(capsule(), host, port)
    const { text } = await get(capsule(), port, '/a%2fb?c')
    expect(text).toBe(`/a%2fb?c ${name(capsule(), port)} 127.0.0.1`)
    const size = 8 * 1024 * 1024
    expect((await answerTo('POST', capsule(), port, '/', Buffer.alloc(size))).text).toBe(String(size))
  })

  it.each([
    ['127.0.0.1', 8004, 'by its host agent'],
    ['0.0.0.0', 8007, 'straight'],
  ])('speaks WebSocket with what listens on %s:%i, %s, and holds it open', async (host, port, way) => {
    await listen(capsule(), host, port)
    const socket = new WebSocket(platform.url.replace('http', 'ws'), { headers: { host: name(capsule(), port) } })
    const first = await new Promise<string>((resolve, reject) => {
      socket.once('message', (data) => resolve(String(data)))
      socket.once('error', reject)
    })
    expect(first).toBe('hello')
    const { 'control-plane': pid } = await pidsOf(platform)
    const { uid } = await stat(`/proc/${pid}`)
    expect((await connectionsTo(port)).includes(uid)).toBe(way === 'straight')
    socket.terminate()
  })

  it('says what is wrong: nothing listens, asleep, gone; and never leads to the agent', async () => {
    const { api } = usePlatform()
    await using other = await api.create()
    expect(await get(other, 8005)).toMatchObject({ status: 502, code: 'port_closed' })
    expect(await get(other, 49_983, '/health')).toMatchObject({ status: 401, code: 'unauthorized' })
    expect(await get(other, 49_983, '/init')).toMatchObject({ status: 404, code: 'not_found' })
    await listen(other, '127.0.0.1', 8006)
    await api.json('POST', `${other.path}/pause`)
    expect(await get(other, 8006)).toMatchObject({ status: 409, code: 'invalid_state' })
    await api.json('PATCH', other.path, { json: { auto_resume: true } })
    const storm = await Promise.all(Array.from({ length: 50 }, () => get(other, 8006)))
    expect(storm.filter(({ status }) => status !== 200)).toEqual([])
    const checkpoint = await api.json<{ id: string }>('POST', `${other.path}/checkpoints`, { json: { name: 'here' } })
    await api.json('POST', `${other.path}/checkpoints/${checkpoint.id}/rollback`)
    expect((await get(other, 8006)).status).toBe(200)
    await api.json('DELETE', other.path)
    expect(await get(other, 8006)).toMatchObject({ status: 410, code: 'capsule_ended' })
  })
})
