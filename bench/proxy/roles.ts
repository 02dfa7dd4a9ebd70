// A process of the comparison that `load-proxy.ts` makes: `roles.ts service|plain|talker|idler`, its settings as JSON in
// ROLE. Sends its parent where it listens, or what it has found.
import { Agent, request as ask, createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import WebSocket, { WebSocketServer } from 'ws'
import { percentile, round } from '../stats.js'
import { openIdle } from './idle.js'

const IDLE_CONNECTIONS = 64
const BODY = 'A page of some eighty bytes, as small ones are, so that what is between costs most.\n'
const settings: Record<string, string> = JSON.parse(process.env.ROLE ?? '{}')
const roles: Readonly<Record<string, () => Promise<string>>> = { service, plain, talker, idler }

/** What is reached: a small page at each path, and a WebSocket that says everything back. */
async function service(): Promise<string> {
  const server = createServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'text/plain', 'content-length': BODY.length })
    response.end(BODY)
  })
  const sockets = new WebSocketServer({ server, perMessageDeflate: false })
  sockets.on('connection', (socket) =>
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })),
  )
  return await listen(server)
}

/** The proxy that everybody writes first: Node's own parts, kept connections, nothing looked at. */
async function plain(): Promise<string> {
  const to = new URL(settings.service ?? '')
  const agent = new Agent({ keepAlive: true, maxFreeSockets: IDLE_CONNECTIONS })
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const { method, url: path, headers } = request
    const onward = ask({ host: to.hostname, port: to.port, agent, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
  })
  server.on('upgrade', (request, client: Socket, head) => {
    const onward = connect(Number(to.port), to.hostname, () => {
      const lines = [`${request.method} ${request.url} HTTP/1.1`]
      for (let at = 0; at < request.rawHeaders.length; at += 2) {
        lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`)
      }
      onward.write(`${lines.join('\r\n')}\r\n\r\n`)
      onward.write(head)
      client.pipe(onward).pipe(client)
    })
    onward.on('error', () => client.destroy())
    client.on('error', () => onward.destroy())
  })
  return await listen(server)
}

/** Sends the next message when the one before has come back, on each of many WebSockets. @returns messages a second, and how long one takes */
async function talker(): Promise<string> {
  const { url = '', host = '', connections = '', seconds = '' } = settings
  const until = performance.now() + Number(seconds) * 1000
  const tookMs: number[] = []
  const talk = async (): Promise<void> => {
    const socket = await openSocket(url, host)
    await new Promise<void>((resolve) => {
      let sentAt = performance.now()
      socket.on('message', () => {
        const now = performance.now()
        tookMs.push(now - sentAt)
        if (now > until) return resolve()
        sentAt = now
        socket.send(BODY)
      })
      socket.send(BODY)
    })
    socket.terminate()
  }
  await Promise.all(Array.from({ length: Number(connections) }, talk))
  return JSON.stringify({ perSecond: tookMs.length / Number(seconds), p99Ms: round(percentile(tookMs, 99), 2) })
}

/** Holds WebSockets that say nothing. */
async function idler(): Promise<string> {
  const { url = '', host = '', connections = '' } = settings
  await openIdle(url, host, Number(connections))
  return 'open'
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', 4096, resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function openSocket(url: string, host: string): Promise<WebSocket> {
  const socket = new WebSocket(url.replace('http', 'ws'), { headers: { host }, perMessageDeflate: false })
  await new Promise((resolve, reject) => {
    socket.once('open', resolve)
    socket.once('error', reject)
  })
  return socket
}

const start = roles[process.argv[2] ?? '']
if (start === undefined) throw new Error(`one of ${Object.keys(roles).join(', ')}`)
process.send?.(await start())
