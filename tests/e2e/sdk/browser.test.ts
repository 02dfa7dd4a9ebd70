import { createServer, request, type Server } from 'node:http'
import { connect } from 'node:net'
import { build } from 'esbuild'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { launchBrowser, noBrowser } from '../harness/browser.js'
import { sdkEntry } from '../harness/sdk.js'

const { platform } = usePlatform()
let browser: Browser
let server: Server
let page: Page
const problems: string[] = []

/** What the page does with the SDK; it runs in the browser. */
const program = `
import { Wrenn } from ${JSON.stringify(sdkEntry(platform))}
window.useCapsule = async (apiKey) => {
  const wrenn = new Wrenn({ apiUrl: location.origin, apiKey })
  const capsule = await wrenn.capsules.create({ name: 'browser' })
  try {
    const decoder = new TextDecoder()
    const stream = await capsule.stream('for i in 1 2 3; do echo "line $i"; done; cat >&2; exit 4', { stdin: true })
    await stream.write('typed in a browser')
    await stream.closeStdin()
    let stdout = '', stderr = ''
    for await (const event of stream) {
      if (event.type === 'stdout') stdout += decoder.decode(event.data)
      if (event.type === 'stderr') stderr += decoder.decode(event.data)
    }
    const content = crypto.getRandomValues(new Uint8Array(60_000))
    await capsule.files.write('/root/from browser', new Blob([content]))
    const back = await capsule.files.read('/root/from browser')
    const pty = await capsule.pty({ command: ['/bin/sh', '-c', 'stty size'] , cols: 70, rows: 10 })
    let terminal = ''
    for await (const event of pty) if (event.type === 'output') terminal += decoder.decode(event.data)
    const missing = await capsule.files.read('/missing').catch((error) => error.code)
    return { id: capsule.id, stdout, stderr, exit: stream.exit.exitCode, same: back.length === content.length && back.every((byte, at) => byte === content[at]), terminal, missing }
  } finally {
    await capsule.destroy()
  }
}
window.moveCapsule = async (apiKey) => {
  const wrenn = new Wrenn({ apiUrl: location.origin, apiKey })
  const capsule = await wrenn.capsules.create({ name: 'browser' })
  const forks = []
  try {
    await capsule.exec('echo kept > /dev/shm/kept')
    const stream = await capsule.stream('echo before; cat /dev/stdin; cat /dev/shm/kept', { stdin: true })
    const events = stream[Symbol.asyncIterator]()
    const next = async () => new TextDecoder().decode((await events.next()).value.data)
    const said = [await next()]
    const paused = (await capsule.pause()).state
    await capsule.resume()
    await stream.closeStdin()
    said.push(await next())
    await capsule.checkpoint('here')
    await capsule.exec('rm /dev/shm/kept; touch /srv/new')
    const changes = []
    for await (const { change, path } of capsule.diff('here')) changes.push(change + ' ' + path)
    await capsule.rollback('here')
    forks.push(...(await capsule.fork()))
    const { stdout } = await forks[0].exec('cat /dev/shm/kept')
    return { paused, said, changes, stdout, parent: forks[0].info.parentId === capsule.id }
  } finally {
    for (const one of [...forks, capsule]) await one.destroy()
  }
}
`

async function bundle(): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: program, resolveDir: platform.artefacts },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: 'chrome120',
  })
  return outputFiles[0]?.text ?? ''
}

/** The page and, on the same origin, the API: how a reverse proxy in front of both looks. */
function serve(script: string): Server {
  const html =
    '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>'
  const pages = new Map([
    ['/', ['text/html', html]],
    ['/page.js', ['text/javascript', script]],
  ])
  const serving = createServer((incoming, answer) => {
    const [type, content] = pages.get(incoming.url ?? '') ?? []
    if (type !== undefined) {
      answer.setHeader('content-type', type).end(content)
      return
    }
    const { method, headers, url } = incoming
    const options = { host: '127.0.0.1', port: platform.port, path: url, method, headers }
    const upstream = request(options, (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers)
      response.pipe(answer)
    })
    upstream.on('error', () => answer.destroy())
    incoming.pipe(upstream)
  })
  serving.on('upgrade', (incoming, client, head) => {
    const upstream = connect(platform.port, '127.0.0.1', () => {
      const lines = incoming.rawHeaders.flatMap((name, at, all) => (at % 2 === 0 ? [`${name}: ${all[at + 1]}`] : []))
      upstream.write(`GET ${incoming.url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`)
      upstream.write(head)
      client.pipe(upstream).pipe(client)
    })
    client.on('error', () => upstream.destroy()).on('close', () => upstream.destroy())
    upstream.on('error', () => client.destroy()).on('close', () => client.destroy())
  })
  return serving
}

describe.skipIf(noBrowser !== '')(`the SDK in a browser ${noBrowser}`, () => {
  beforeAll(async () => {
    server = serve(await bundle())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('A TCP server has a port.')
    browser = await launchBrowser([address.port])
    page = await browser.newPage()
    page.on('console', (message) => problems.push(`${message.type()}: ${message.text()}`))
    page.on('pageerror', (error) => problems.push(String(error)))
    await page.goto(`http://127.0.0.1:${address.port}/`)
  })
  afterAll(async () => {
    await browser?.close()
    server?.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })

  it('creates a capsule, streams a command, opens a terminal and reads back a file', async () => {
    await page.waitForFunction('typeof window.useCapsule === "function"')
    const seen: unknown = await page.evaluate(`window.useCapsule(${JSON.stringify(platform.apiKey)})`)
    expect(seen).toEqual({
      id: expect.stringMatching(/^cl-/),
      stdout: 'line 1\nline 2\nline 3\n',
      stderr: 'typed in a browser',
      exit: 4,
      same: true,
      terminal: '10 70\r\n',
      missing: 'file_not_found',
    })
    // Chromium reports every answer of 400 and above; the missing file is meant.
    expect(problems.filter((problem) => !problem.includes('404'))).toEqual([])
  })

  it('pauses, resumes, goes back and forks', async () => {
    await page.waitForFunction('typeof window.moveCapsule === "function"')
    const seen: unknown = await page.evaluate(`window.moveCapsule(${JSON.stringify(platform.apiKey)})`)
    expect(seen).toEqual({
      paused: 'paused',
      said: ['before\n', 'kept\n'],
      changes: ['added /srv/new'],
      stdout: 'kept\n',
      parent: true,
    })
  })
})
