import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { get } from 'node:https'
import { createInterface } from 'node:readline'
import { freePort } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'
import { spawnWrenn, wrenn } from '../harness/platform.js'

const { platform } = usePlatform()
const capsule = useCapsule()

const PORT = 8090
const SERVER = `
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.headers['X-Forwarded-Proto'].encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(('127.0.0.1', ${PORT}), Handler).serve_forever()
`

let proxy: ChildProcess
let ready: { readonly url: string; readonly tls_port: number; readonly pid: number }

beforeAll(async () => {
  const tls = platform.tls
  if (tls === undefined) throw new Error('The platform of this suite serves TLS.')
  const at = ['--port', String(await freePort()), '--tls', '--tls-port', String(await freePort())]
  proxy = spawnWrenn(platform, ['proxy', ...at, '--domain', `localhost,${tls.domain}`, '--json'])
  proxy.stderr?.resume()
  if (proxy.stdout === null) throw new Error('The child has pipes.')
  const [line] = await once(createInterface({ input: proxy.stdout }), 'line')
  ready = JSON.parse(String(line))
})

afterAll(async () => {
  if (proxy.exitCode !== null) return
  proxy.kill('SIGTERM')
  await once(proxy, 'exit')
})

async function through(url: string): Promise<string> {
  const response = await fetch(url, {
    headers: { 'e2b-sandbox-id': capsule().id, 'e2b-sandbox-port': String(PORT) },
  })
  return `${response.status} ${await response.text()}`
}

describe('a proxy beside a platform', () => {
  it('serves ports of its capsules, by HTTPS too, and nothing of the API', async () => {
    await capsule().background('exec python3 -c "$SERVER"', { envs: { SERVER } })
    await expect.poll(() => through(ready.url), { timeout: 120_000 }).toBe('200 http')
    const refused = await fetch(`${ready.url}/v1/capsules`, { headers: { 'x-api-key': platform.apiKey } })
    expect(refused.status).toBe(404)
    const { domain = '', caFile = '' } = platform.tls ?? {}
    const servername = `${PORT}-${capsule().id}.${domain}`
    const answer = get({
      ...{ host: '127.0.0.1', port: ready.tls_port, servername, ca: await readFile(caFile, 'utf8') },
      headers: { host: `${servername}:${ready.tls_port}` },
    })
    const [response] = await once(answer, 'response')
    const chunks: Buffer[] = []
    for await (const chunk of response) chunks.push(chunk)
    expect(Buffer.concat(chunks).toString()).toBe('https')
  })

  it('wakes a capsule by itself', async () => {
    await capsule().api.json('PATCH', capsule().path, { json: { auto_resume: true } })
    await capsule().api.json('POST', `${capsule().path}/pause`, { query: { wait_sec: '60' } })
    await capsule().untilState('paused')
    expect(await through(ready.url)).toBe('200 http')
    expect((await capsule().get()).state).toBe('running')
  })

  it('does not run as root, and is gone when it is told to stop', async () => {
    const children = await wrennProcesses()
    expect(children.length).toBeGreaterThan(0)
    expect(children.map(({ uid }) => uid)).not.toContain(0)
    proxy.kill('SIGTERM')
    await once(proxy, 'exit')
    await expect(through(ready.url)).rejects.toThrow()
    expect(children.filter(({ pid }) => existsSync(`/proc/${pid}`))).toEqual([])
  })

  it('says what it lacks', async () => {
    const dir = `${platform.dir}-of-nobody`
    const { code, stderr } = await wrenn(platform, ['proxy', '--dir', dir])
    expect(code).not.toBe(0)
    expect(stderr).toContain(`No platform runs in ${dir}`)
  })
})

/** Children of the command that are proxies. */
async function wrennProcesses(): Promise<readonly { readonly pid: number; readonly uid: number }[]> {
  const children = await readFile(`/proc/${ready.pid}/task/${ready.pid}/children`, 'utf8').catch(() => '')
  const pids = children.split(' ').filter((pid) => pid !== '')
  return await Promise.all(
    pids.map(async (pid) => {
      const status = await readFile(`/proc/${pid}/status`, 'utf8')
      return { pid: Number(pid), uid: Number(/^Uid:\s+(\d+)/m.exec(status)?.[1]) }
    }),
  )
}
