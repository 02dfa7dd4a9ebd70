import { createServer as createHttp } from 'node:http'
import { connect as connectHttp2, createServer as createHttp2 } from 'node:http2'
import { type ConnectionOptions, connect } from 'node:tls'
import { type Logger, silentLogger } from '@wrenn/base'
import {
  type Credentials,
  createCertificateRequest,
  createHostAuthority,
  hostName,
  issueToControlPlane,
  issueToHost,
  readCertificateRequest,
} from '@wrenn/certificates'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { RemoteListener } from './remote-listener.js'

const DAY_MS = 24 * 3600 * 1000
const HOST = `host-${'1'.repeat(25)}`

let authority: Credentials
let reached: string[]
let listener: RemoteListener
const warnings: string[] = []
const logger: Logger = { ...silentLogger, warn: (_facts: unknown, event?: string) => void warnings.push(String(event)) }

async function identity(issuer = authority, id = HOST) {
  const { key, request } = await createCertificateRequest()
  const { cert: certificate } = await issueToHost(issuer, id, await readCertificateRequest(request), DAY_MS)
  return { key, certificate, authorities: issuer.cert }
}

beforeAll(async () => {
  authority = await createHostAuthority()
  const rpc = createHttp2((_request, response) => {
    reached.push('rpc')
    response.end('rpc')
  })
  const tunnels = createHttp((_request, response) => {
    reached.push('tunnel')
    response.end('tunnel')
  })
  listener = await RemoteListener.listen(rpc, tunnels, {
    ...(await identity()),
    listen: { host: '127.0.0.1', port: 0 },
    logger,
  })
})
afterAll(async () => await listener[Symbol.asyncDispose]())
beforeEach(() => {
  reached = []
})

const optionsOf = (own: Partial<Credentials>, trusted = authority): ConnectionOptions => ({
  ...{ host: '127.0.0.1', port: listener.port, servername: hostName(HOST), ca: trusted.cert, ...own },
})

/** What an HTTP/1.1 request by such a connection comes to. */
async function ask(options: ConnectionOptions): Promise<string> {
  return await new Promise((resolve) => {
    let said = ''
    const socket = connect(options, () => socket.write('GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n'))
    socket.on('data', (chunk: Buffer) => {
      said += chunk.toString()
    })
    socket.once('error', () => resolve('refused'))
    socket.once('close', () => resolve(said === '' ? 'refused' : (said.split('\r\n\r\n')[1] ?? '')))
  })
}

describe('the door of a host agent to a network', () => {
  it('lets a control plane through: HTTP/2 to calls, HTTP/1.1 to tunnels', async () => {
    const own = await issueToControlPlane(authority, DAY_MS)
    expect(await ask(optionsOf(own))).toBe('tunnel')
    const session = connectHttp2('http://a', {
      createConnection: () => connect({ ...optionsOf(own), ALPNProtocols: ['h2'] }),
    })
    const stream = session.request({ ':path': '/' })
    let said = ''
    for await (const chunk of stream) said += String(chunk)
    session.close()
    expect([said, reached]).toEqual(['rpc', ['tunnel', 'rpc']])
  })

  it('lets nobody else through', async () => {
    const foreign = await createHostAuthority()
    const host = await identity(authority, `host-${'2'.repeat(25)}`)
    const past = new Date(Date.now() - 3 * DAY_MS)
    const callers: Readonly<Record<string, Partial<Credentials>>> = {
      'without a certificate': {},
      'of another authority': await issueToControlPlane(foreign, DAY_MS),
      'a host': { cert: host.certificate, key: host.key },
      'with one that is over': await issueToControlPlane(authority, DAY_MS, past),
    }
    for (const [who, own] of Object.entries(callers)) {
      warnings.length = 0
      expect(await ask(optionsOf(own)), who).toBe('refused')
      await expect.poll(() => warnings, { message: who }).toEqual(['host.caller_refused'])
    }
    const own = await issueToControlPlane(authority, DAY_MS)
    expect(await ask({ ...optionsOf(own), maxVersion: 'TLSv1.2' }), 'by TLS 1.2').toBe('refused')
    expect(reached).toEqual([])
  })

  it('checks who calls each time: no session is resumed', async () => {
    const own = await issueToControlPlane(authority, DAY_MS)
    const session = await new Promise<Buffer>((resolve) => {
      const socket = connect(optionsOf(own)).once('session', (given: Buffer) => {
        socket.destroy()
        resolve(given)
      })
    })
    expect(await ask({ ...optionsOf(own), session })).toBe('refused')
    expect(reached).toEqual([])
  })

  it('proves itself with another certificate from the next connection on', async () => {
    const next = await createHostAuthority()
    const own = await issueToControlPlane(authority, DAY_MS)
    const renewed = await identity(next)
    listener.renew({ ...renewed, authorities: `${authority.cert}\n${next.cert}` })
    expect(await ask(optionsOf(own))).toBe('refused')
    expect(await ask(optionsOf(own, next))).toBe('tunnel')
    expect(await ask(optionsOf(await issueToControlPlane(next, DAY_MS), next))).toBe('tunnel')
  })
})
