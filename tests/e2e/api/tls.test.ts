import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { useCapsule, usePlatform } from '../harness/api.js'
import { collect } from '../harness/platform.js'

const { platform } = usePlatform()
const capsule = useCapsule()
const tls = tlsOf()

const PORT = 8080
const CURL = '/usr/bin/curl'
/** Says what it was told of the client, until it is killed. */
const SERVER = `
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = ' '.join([self.headers['X-Forwarded-Proto'], self.headers['Host']]).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(('127.0.0.1', ${PORT}), Handler).serve_forever()
`
/** Asks by TLS with what Python trusts; every name is this machine. */
const ASK = `
import socket, sys, urllib.request
ask = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: ask('127.0.0.1', *rest, **named)
print(urllib.request.urlopen(sys.argv[1]).read().decode())
`

function tlsOf() {
  if (platform.tls === undefined) throw new Error('The platform of this suite serves TLS.')
  return platform.tls
}

async function run(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return await collect(spawn(program, args, { env: { PATH: '/usr/bin:/bin', ...env } }), '')
}

const authority = (label: string): string => `${label}.${tls.domain}:${tls.port}`
const label = (): string => `${PORT}-${capsule().id}`

async function serveInGuest(): Promise<void> {
  await capsule().background('exec python3 -c "$SERVER"', { envs: { SERVER } })
  const headers = { 'e2b-sandbox-id': capsule().id, 'e2b-sandbox-port': String(PORT) }
  await expect.poll(async () => (await fetch(platform.url, { headers })).status, { timeout: 120_000 }).toBe(200)
}

describe('a platform that serves TLS', () => {
  it('is reached by programs that trust its authority and nothing else', async () => {
    await serveInGuest()
    const seen = `https ${authority(label())}`
    const python = await run('python3', ['-c', ASK, `https://${authority(label())}/`], { SSL_CERT_FILE: tls.caFile })
    expect(python).toMatchObject({ code: 0, stdout: `${seen}\n` })
    const stranger = await run('python3', ['-c', ASK, `https://${authority(label())}/`])
    expect(stranger.stderr).toContain('CERTIFICATE_VERIFY_FAILED')
    expect(
      await run('python3', ['-c', ASK, `https://${authority('api')}/health`], { SSL_CERT_FILE: tls.caFile }),
    ).toMatchObject({ code: 0 })
  })

  it.skipIf(!existsSync(CURL))('is reached by curl', async () => {
    await serveInGuest()
    const resolve = `${label()}.${tls.domain}:${tls.port}:127.0.0.1`
    const curl = ['--silent', '--cacert', tls.caFile, '--resolve', resolve, `https://${authority(label())}/`]
    expect(await run(CURL, curl)).toMatchObject({ code: 0, stdout: `https ${authority(label())}` })
  })

  it('carries the WebSockets of the API', async () => {
    const socket = new WebSocket(`wss://127.0.0.1:${tls.port}/v1/capsules/${capsule().id}/exec/stream`, {
      ca: await readFile(tls.caFile),
      headers: { 'x-api-key': platform.apiKey },
    })
    const frames: string[] = []
    socket.on('message', (data) => frames.push(String(data)))
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    socket.send(JSON.stringify({ type: 'start', cmd: 'echo', args: ['by TLS'] }))
    await new Promise((resolve) => socket.once('close', resolve))
    expect(frames.join('')).toContain('by TLS')
  })
})
