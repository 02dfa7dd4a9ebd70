import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { get } from 'node:https'
import { connect as dial } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { UndoStack, waitFor } from '@wrenn/base'
import { type Credentials, createAuthority, issueCertificate } from '@wrenn/certificates'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { readConfig } from './config.js'
import { type Platform, startPlatform } from './testing/harness.js'
import { serve } from './testing/proxied.js'

const DOMAIN = 'sbx.test'
/** So long that a busy machine agrees on a key within it. */
const HANDSHAKE_WITHIN_MS = 4_000
let postgres: TestPostgres
let authority: Credentials

beforeAll(async () => {
  postgres = await startTestPostgres()
  authority = await createAuthority('Test', [DOMAIN])
})
afterAll(() => postgres[Symbol.asyncDispose]())

interface Secure extends AsyncDisposable {
  readonly platform: Platform
  /** Puts another certificate and key in the place of what is served. */
  replace(credentials: Credentials): Promise<void>
}

async function startSecure(handshakeWithinMs = 20_000): Promise<Secure> {
  await using undo = new UndoStack()
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-tls-'))
  await undo.defer(() => rm(dir, { recursive: true }))
  const files = { cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem') }
  const replace = async ({ cert, key }: Credentials): Promise<void> => {
    await writeFile(files.key, key)
    await writeFile(files.cert, cert)
  }
  await replace(await issueCertificate(authority, [DOMAIN]))
  const platform = await startPlatform({
    databaseUrl: postgres.url,
    env: {
      WRENN_TLS_PORT: '0',
      WRENN_TLS_CERT: files.cert,
      WRENN_TLS_KEY: files.key,
      WRENN_PROXY_DOMAIN: DOMAIN,
    },
    timing: { lookForCertificateEveryMs: 20, handshakeWithinMs },
  })
  await undo.defer(() => platform[Symbol.asyncDispose]())
  const owned = undo.move()
  return { platform, replace, [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose]() }
}

interface Answer {
  readonly status: number | undefined
  readonly body: string
  readonly location: string | undefined
  /** Serial number of the certificate that the server showed. */
  readonly serial: string
}

/** Asks by TLS as a client does that finds `name` by its name server. */
async function ask(platform: Platform, name: string, path: string, headers = {}): Promise<Answer> {
  const port = platform.tlsPort
  const host = `${name}.${DOMAIN}`
  const options = { host: '127.0.0.1', port, path, servername: host, ca: authority.cert, agent: false }
  return await new Promise((resolve, reject) => {
    get({ ...options, headers: { host: `${host}:${port}`, ...headers } }, (response) => {
      const { socket } = response
      const serial = 'getPeerCertificate' in socket ? String(connectedTo(socket).serialNumber) : ''
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk
      })
      const { statusCode: status, headers } = response
      response.once('end', () => resolve({ status, body, location: headers.location, serial }))
    }).once('error', reject)
  })
}

function connectedTo(socket: object): { readonly serialNumber?: string } {
  return 'getPeerCertificate' in socket && typeof socket.getPeerCertificate === 'function'
    ? socket.getPeerCertificate.call(socket)
    : {}
}

describe('the listener for TLS', () => {
  it('serves the API beside the plain one', async () => {
    await using secure = await startSecure()
    const { platform } = secure
    const { status, body } = await ask(platform, 'api', '/v1/capsules', { 'x-api-key': platform.key })
    expect([status, JSON.parse(body)]).toEqual([200, []])
    expect((await platform.call('GET', '/v1/capsules')).status).toBe(200)
  })

  it('serves ports, tells the service that it did, and keeps redirects on TLS', async () => {
    await using secure = await startSecure()
    await using service = await serve((request, response) => {
      if (request.url === '/elsewhere') response.writeHead(302, { location: 'http://localhost:3000/there' })
      response.end(`${request.headers['x-forwarded-proto']} ${request.headers['x-forwarded-port']}`)
    })
    const { platform } = secure
    const { id } = await platform.create({})
    await platform.until(id, 'running')
    const plain = await ask(platform, `${service.port}-${id}`, '/')
    expect([plain.status, plain.body]).toEqual([200, `https ${platform.tlsPort}`])
    const { location } = await ask(platform, `${service.port}-${id}`, '/elsewhere')
    expect(location).toBe(`https://3000-${id}.${DOMAIN}:${platform.tlsPort}/there`)
  })

  it('carries WebSockets', async () => {
    await using secure = await startSecure()
    const { platform } = secure
    const { id } = await platform.create({})
    await platform.until(id, 'running')
    const socket = new WebSocket(`wss://127.0.0.1:${platform.tlsPort}/v1/capsules/${id}/exec/stream`, {
      ca: authority.cert,
      headers: { 'x-api-key': platform.key },
    })
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.close()
    await closed
  })

  it('shows a renewed certificate to the next client, and none that does not fit its key', async () => {
    await using secure = await startSecure()
    const { platform, replace } = secure
    const serial = async () => (await ask(platform, 'api', '/health')).serial
    const first = await serial()
    const next = await issueCertificate(authority, [DOMAIN])
    await replace({ cert: next.cert, key: (await issueCertificate(authority, [DOMAIN])).key })
    expect(await serial()).toBe(first)
    await replace({ cert: '', key: '' })
    expect(await serial()).toBe(first)
    await replace(next)
    const renewed = await waitFor(async () => ((await serial()) === first ? undefined : await serial()), {
      timeoutMs: 10_000,
      what: 'the renewed certificate',
    })
    expect(renewed).not.toBe(first)
  })

  it('goes on after clients that speak no TLS', async () => {
    await using secure = await startSecure()
    const { platform } = secure
    const port = platform.tlsPort ?? 0
    const garbage = dial({ host: '127.0.0.1', port })
    garbage.on('error', () => {}).write(randomBytes(300))
    await new Promise((resolve) => garbage.once('close', resolve))
    expect((await ask(platform, 'api', '/health')).status).toBe(200)
  })

  it('waits for no client that does not agree on anything, whatever little it sends', async () => {
    await using secure = await startSecure(HANDSHAKE_WITHIN_MS)
    const port = secure.platform.tlsPort ?? 0
    const ends = [Buffer.alloc(0), Buffer.from('160301', 'hex')].map((bytes) => {
      const silent = dial({ host: '127.0.0.1', port }).on('error', () => {})
      silent.write(bytes)
      return new Promise((resolve) => silent.once('close', resolve))
    })
    await Promise.all(ends)
    expect((await ask(secure.platform, 'api', '/health')).status).toBe(200)
  })

  it('lets go of open connections when the control plane stops', async () => {
    const secure = await startSecure()
    const socket = connect({ host: '127.0.0.1', port: secure.platform.tlsPort ?? 0, ca: authority.cert })
    socket.on('error', () => {})
    await new Promise((resolve) => socket.once('secureConnect', resolve))
    const closed = new Promise((resolve) => socket.once('close', resolve))
    await secure[Symbol.asyncDispose]()
    await closed
  })
})

describe('configuration of TLS', () => {
  const env = { DATABASE_URL: 'postgres://x', WRENN_HOST_AGENT_ADDRESS: 'unix:/x' }

  it('is whole or not there', () => {
    expect(readConfig(env).tls).toBeUndefined()
    expect(() => readConfig({ ...env, WRENN_TLS_PORT: '8443' })).toThrow('set together')
  })

  it('names the file that cannot be read', async () => {
    const broken = { WRENN_TLS_PORT: '0', WRENN_TLS_CERT: '/nowhere/cert.pem', WRENN_TLS_KEY: '/nowhere/key.pem' }
    await expect(startPlatform({ databaseUrl: postgres.url, env: broken })).rejects.toThrow('WRENN_TLS_CERT')
  })
})
