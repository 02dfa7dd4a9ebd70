import { Agent, type IncomingMessage, type RequestOptions, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { CLIENT_LINE_PATH, CLIENT_LINE_PROTOCOL } from '@wrenn/protocol'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, SECRET, TOKEN } from '../testing/agent-harness.js'
import { eventually } from '../testing/eventually.js'

let harness: AgentHarness
const sockets: Socket[] = []
beforeAll(async () => {
  harness = await AgentHarness.start()
  await harness.init({ accessToken: TOKEN, envs: { KNOWN: 'yes' } })
})
afterAll(() => harness[Symbol.asyncDispose]())
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
})

/** What the agent says to who asks for a line, and the connection. */
async function open(headers: Readonly<Record<string, string>> = { 'x-wrenn-secret': SECRET }, path = CLIENT_LINE_PATH) {
  const socket = connect({ port: harness.agent.port, host: '127.0.0.1' }).on('error', () => {})
  sockets.push(socket)
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(
    `GET ${path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: ${CLIENT_LINE_PROTOCOL}\r\n${lines.join('')}\r\n`,
  )
  const head = await new Promise<string>((resolve) => socket.once('data', (chunk) => resolve(String(chunk))))
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  agent.createConnection = () => socket
  return { socket, agent, status: Number(head.slice(9, 12)) }
}

interface Answer {
  readonly status: number
  readonly text: string
}

async function ask(agent: Agent, options: RequestOptions, body?: string): Promise<Answer> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ host: 'a', agent, ...options }, resolve)
      .on('error', reject)
      .end(body)
  })
  let text = ''
  for await (const chunk of answer.setEncoding('utf8')) text += chunk
  return { status: answer.statusCode ?? 0, text }
}

describe('a line for clients', () => {
  it('is given to the host alone', async () => {
    for (const headers of [{}, { 'x-wrenn-secret': 'wrong' }, { 'x-access-token': TOKEN }])
      expect((await open(headers)).status).toBe(401)
    expect((await open({ 'x-wrenn-secret': SECRET }, '/client-line/')).status).toBe(404)
    expect((await open()).status).toBe(101)
  })

  it('serves what is for clients without a proof, one request after the other', async () => {
    const { agent } = await open()
    expect((await ask(agent, { path: '/health' })).status).toBe(204)
    expect(JSON.parse((await ask(agent, { path: '/envs' })).text)).toEqual({ KNOWN: 'yes' })
    expect((await ask(agent, { path: '/files?path=/etc/passwd' })).text).toContain('root:')
    const headers = { 'content-type': 'application/json' }
    const list = { method: 'POST', path: '/process.Process/List', headers }
    expect(await ask(agent, list, '{}')).toEqual({ status: 200, text: '{}' })
  })

  it('leads to nothing that is the host’s, with its secret either', async () => {
    const { agent } = await open()
    for (const headers of [{}, { 'x-wrenn-secret': SECRET }]) {
      for (const [method, path] of [
        ['POST', '/init'],
        ['GET', '/activity'],
        ['POST', '/quiesce'],
        ['GET', '/archive?path=/etc'],
        ['PUT', '/archive?path=/etc'],
        ['PUT', '/files?path=/tmp/never'],
        ['POST', '//init'],
        ['POST', '/./init'],
        ['POST', '/files/../init'],
        ['POST', '/%69nit'],
        ['POST', '/INIT'],
        ['POST', 'http://a/init'],
        ['GET', '/connect/22'],
        ['GET', CLIENT_LINE_PATH],
      ] as const) {
        const { status } = await ask(agent, { method, path, headers: { ...headers, 'content-length': '0' } })
        expect([method, path, status]).toEqual([method, path, 404])
      }
    }
    expect((await harness.fetch('/envs')).status).toBe(200)
  })

  it('leads nowhere else by an upgrade', async () => {
    const { agent } = await open()
    const headers = { connection: 'Upgrade', upgrade: 'tcp', 'x-wrenn-secret': SECRET }
    expect((await ask(agent, { path: '/connect/22', headers })).status).toBe(404)
  })

  it('is use of the guest only while it is asked something', async () => {
    const { socket } = await open()
    const openStreams = async (): Promise<unknown> => {
      const activity: { openStreams?: unknown } = JSON.parse(await (await harness.fetch('/activity')).text())
      return activity.openStreams
    }
    expect(await openStreams()).toBe(0)
    const frame = Buffer.from('{"path":"/tmp"}')
    const head = Buffer.from([0, 0, 0, 0, frame.length])
    const headers = { 'content-type': 'application/connect+json', 'content-length': String(head.length + frame.length) }
    socket.write(
      `POST /filesystem.Filesystem/WatchDir HTTP/1.1\r\nhost: a\r\ncontent-type: ${headers['content-type']}\r\ncontent-length: ${headers['content-length']}\r\n\r\n`,
    )
    socket.write(Buffer.concat([head, frame]))
    await eventually('the stream to be counted', async () => (await openStreams()) === 1)
    socket.destroy()
    await eventually('the stream to end', async () => (await openStreams()) === 0)
  })
})
