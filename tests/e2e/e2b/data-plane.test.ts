import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import {
  clientVersions,
  type E2bSandbox,
  type E2bSdk,
  installClients,
  loadClient,
  type Options,
} from '../harness/e2b-clients.js'
import { eventually } from '../harness/wait.js'

/** What published clients do in a guest: the same for every version. */
const { platform, api } = usePlatform()
const AGENT_PORT = '49983'
let dir: string
let options: Options
let keyId: string | undefined

beforeAll(async () => {
  dir = await installClients()
  // SDKs up to 2.45 refuse keys of another form.
  const made = await api.json<{ id: string; key: string }>('POST', '/v1/api-keys', { json: { format: 'e2b' } })
  options = { apiKey: made.key, apiUrl: platform.url, sandboxUrl: platform.url }
  keyId = made.id
})
afterAll(async () => {
  if (keyId !== undefined) await api.json('DELETE', `/v1/api-keys/${keyId}`)
})

describe.each(clientVersions)('%s, unmodified, in a guest', (version) => {
  let sdk: E2bSdk
  let sandbox: E2bSandbox

  beforeAll(async () => {
    sdk = await loadClient(dir, version)
    sandbox = await sdk.Sandbox.create('base', options)
  })
  afterAll(async () => {
    await sandbox?.kill()
  })

  it('runs commands as the user of E2B, and says how they ended', async () => {
    const { commands } = sandbox
    const ran = await commands.run('id -un; pwd; echo err >&2')
    expect(ran).toMatchObject({ stdout: 'user\n/home/user\n', stderr: 'err\n', exitCode: 0 })
    expect((await commands.run('id -un', { user: 'root' })).stdout).toBe('root\n')
    const failed = commands.run('exit 3')
    await expect(failed).rejects.toBeInstanceOf(sdk.CommandExitError)
    await expect(failed).rejects.toMatchObject({ exitCode: 3 })
  })

  it('streams output, feeds a command in the background, finds and kills it', async () => {
    const { commands } = sandbox
    const seen: string[] = []
    await commands.run('for i in 1 2 3; do echo $i; done', { onStdout: (text) => void seen.push(text) })
    expect(seen.join('')).toBe('1\n2\n3\n')
    const cat = await commands.run('cat > /tmp/fed', { background: true, stdin: true })
    await commands.sendStdin(cat.pid, 'hello\n')
    await commands.run('until [ -s /tmp/fed ]; do sleep 0.1; done')
    expect((await commands.list()).map(({ pid }) => pid)).toContain(cat.pid)
    expect(await cat.kill()).toBe(true)
    await expect(cat.wait()).rejects.toBeInstanceOf(sdk.CommandExitError)
  })

  it('writes, reads, lists, moves and removes files, also where the user may not', async () => {
    const { files } = sandbox
    await files.write('hello.txt', 'hi')
    expect(await files.read('hello.txt')).toBe('hi')
    await files.write('/at-the-root.txt', 'hi')
    expect(await files.getInfo('/at-the-root.txt')).toMatchObject({ owner: 'user', size: 2 })
    await files.remove('/at-the-root.txt')
    await files.write([
      { path: 'many/1', data: 'one' },
      { path: 'many/2', data: 'two' },
    ])
    await files.rename('many/1', 'many/3')
    expect((await files.list('many')).map(({ name }) => name).sort()).toEqual(['2', '3'])
    expect(await files.exists('many/1')).toBe(false)
    expect([await files.makeDir('made'), await files.makeDir('made')]).toEqual([true, false])
    const big = 'x'.repeat(3_000_000)
    await files.write('big', new Blob([big]))
    expect((await files.read('big')) === big).toBe(true)
    await expect(files.read('missing')).rejects.toBeInstanceOf(sdk.NotFoundError)
  })

  it('watches a directory', async () => {
    const { files } = sandbox
    await files.makeDir('watched')
    const seen: string[] = []
    const watcher = await files.watchDir('watched', ({ name }) => void seen.push(name))
    await files.write('watched/new', 'x')
    await eventually('the new file to be seen', async () => (seen.includes('new') ? true : undefined))
    await watcher.stop()
  })

  it('opens a terminal', async () => {
    const { pty } = sandbox
    let text = ''
    const onData = (bytes: Uint8Array): void => {
      text += Buffer.from(bytes).toString()
    }
    const terminal = await pty.create({ cols: 80, rows: 24, timeoutMs: 0, onData })
    await pty.resize(terminal.pid, { cols: 100, rows: 30 })
    await pty.sendInput(terminal.pid, Buffer.from('stty size; exit\n'))
    await terminal.wait()
    expect(text).toContain('30 100')
  })

  it('hands out signed links to files', async () => {
    await sandbox.files.write('linked', 'by a link')
    const { pathname, search } = new URL(await sandbox.downloadUrl('linked', { useSignatureExpiration: 100 }))
    const headers = { 'e2b-sandbox-id': sandbox.sandboxId, 'e2b-sandbox-port': AGENT_PORT }
    const ask = async (query: string): Promise<[number, string]> => {
      const answer = await fetch(`${platform.url}${pathname}${query}`, { headers })
      return [answer.status, await answer.text()]
    }
    expect(await ask(search)).toEqual([200, 'by a link'])
    const [refused] = await ask(search.replace(/path=[^&]*/, 'path=hello.txt'))
    expect(refused).toBe(401)
  })

  it('does not reach what is the host’s alone', async () => {
    const headers = { 'e2b-sandbox-id': sandbox.sandboxId, 'e2b-sandbox-port': AGENT_PORT }
    for (const path of ['/init', '//init', '/%69nit', '/x/../init']) {
      expect((await fetch(platform.url + path, { method: 'POST', headers })).status, path).toBe(404)
    }
  })

  it('knows when it was killed under a command', async () => {
    const doomed = await sdk.Sandbox.create('base', options)
    const command = await doomed.commands.run('sleep 1000', { background: true })
    const end = command.wait().then(
      () => 'ended',
      (error: unknown) => error,
    )
    expect(await doomed.isRunning()).toBe(true)
    await api.json('DELETE', `/v1/capsules/${doomed.sandboxId}`)
    expect(await end).toBeInstanceOf(sdk.TimeoutError)
    expect(await doomed.isRunning()).toBe(false)
  })
})
