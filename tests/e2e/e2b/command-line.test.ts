import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { installClients } from '../harness/e2b-clients.js'
import { type CommandResult, collect } from '../harness/platform.js'
import { Terminal } from '../harness/terminal.js'
import { eventually } from '../harness/wait.js'

const { platform, api } = usePlatform()
let program: string
let apiKey: string
let keyId: string | undefined
let sandboxId: string

function environment(): Record<string, string> {
  const { PATH = '', HOME = '/root' } = process.env
  return { PATH, HOME, E2B_API_KEY: apiKey, E2B_API_URL: platform.url, E2B_SANDBOX_URL: platform.url }
}

/** As a person runs it at a shell. */
async function e2b(args: readonly string[], input: string | Uint8Array = ''): Promise<CommandResult> {
  return await collect(spawn(program, args, { env: environment(), stdio: 'pipe' }), input)
}

async function output(args: readonly string[], input: string | Uint8Array = ''): Promise<string> {
  const { code, stdout, stderr } = await e2b(args, input)
  if (code !== 0) throw new Error(`e2b ${args.join(' ')} ended with ${code}: ${stderr}`)
  return stripVTControlCharacters(stdout)
}

beforeAll(async () => {
  program = join(await installClients('command-line'), 'node_modules/.bin/e2b')
  const made = await api.json<{ id: string; key: string }>('POST', '/v1/api-keys', { json: { format: 'e2b' } })
  apiKey = made.key
  keyId = made.id
  sandboxId = (await output(['sandbox', 'create', 'base', '--detach'])).trim()
})
afterAll(async () => {
  await e2b(['sandbox', 'kill', sandboxId])
  if (keyId !== undefined) await api.json('DELETE', `/v1/api-keys/${keyId}`)
})

describe('@e2b/cli 2.19.0, unmodified', () => {
  it('lists what runs, and tells of one', async () => {
    const listed: { sandboxId: string }[] = JSON.parse(await output(['sandbox', 'list', '--format', 'json']))
    expect(listed.map((one) => one.sandboxId)).toContain(sandboxId)
    const info = JSON.parse(await output(['sandbox', 'info', sandboxId, '--format', 'json']))
    expect(info).toMatchObject({ sandboxId, state: 'running' })
  })

  it('runs commands: their output, their exit code, their input, as whom and where', async () => {
    expect(await output(['sandbox', 'exec', sandboxId, 'echo hello; whoami'])).toBe('hello\nuser\n')
    const failed = await e2b(['sandbox', 'exec', sandboxId, 'echo no >&2; exit 3'])
    expect(failed).toMatchObject({ code: 3, stderr: expect.stringContaining('no\n') })
    expect(await output(['sandbox', 'exec', sandboxId, 'wc -c'], 'x'.repeat(100_000))).toBe('100000\n')
    const options = ['--user', 'root', '--cwd', '/tmp', '--env', 'A=b c']
    expect(await output(['sandbox', 'exec', ...options, sandboxId, 'echo "$A"; whoami; pwd'])).toBe('b c\nroot\n/tmp\n')
  })

  it('shows what a sandbox uses', async () => {
    const shown = await output(['sandbox', 'metrics', sandboxId, '--format', 'json'])
    expect(shown).toContain('cpuCount')
  })

  it('keeps a snapshot, lists it, and deletes it', async () => {
    const made = await output(['sandbox', 'snapshot', 'create', sandboxId])
    const [, id = ''] = /Created snapshot (\S+) from/.exec(made) ?? []
    const list = async (): Promise<string> => await output(['sandbox', 'snapshot', 'list', sandboxId])
    expect(await list()).toContain(id)
    expect(await output(['template', 'unpublish', id, '--yes'])).toContain(id)
    expect((await e2b(['template', 'publish', id, '--yes'])).stderr).toContain('public cannot be true')
    await output(['sandbox', 'snapshot', 'delete', id])
    expect(await list()).not.toContain(id)
  })

  it('pauses and resumes', async () => {
    await output(['sandbox', 'exec', sandboxId, 'echo kept > /tmp/kept'])
    await output(['sandbox', 'pause', sandboxId])
    const paused: { sandboxId: string }[] = JSON.parse(
      await output(['sandbox', 'list', '--state', 'paused', '--format', 'json']),
    )
    expect(paused.map((one) => one.sandboxId)).toContain(sandboxId)
    await output(['sandbox', 'resume', sandboxId])
    expect(await output(['sandbox', 'exec', sandboxId, 'cat /tmp/kept'])).toBe('kept\n')
  })

  it('opens a terminal', async () => {
    const terminal = new Terminal([program, 'sandbox', 'connect', sandboxId], environment())
    await terminal.shows('$ ')
    terminal.type('echo at a $((40 + 2))\r')
    await terminal.shows('at a 42')
    terminal.type('exit\r')
    expect(await terminal.ended).toBe(0)
  })

  it('shows what happened to a sandbox, some of it or all, and ends with the sandbox when it follows', async () => {
    const one = (await output(['sandbox', 'create', 'base', '--detach'])).trim()
    const following = output(['sandbox', 'logs', one, '--follow', '--level', 'debug', '--format', 'json'])
    const shown = async () => {
      const text = await output(['sandbox', 'logs', one, '--format', 'json'])
      return text.includes('"Created"') ? text : undefined
    }
    const lines = await eventually('the first line of a log', shown)
    expect(JSON.parse(lines.trim())).toMatchObject({ message: 'Created', logger: 'sandbox', action: 'capsule.create' })
    await output(['sandbox', 'kill', one])
    expect(await following).toContain('"Create begun"')
    const isToldOfItsEnd = async () => (await output(['sandbox', 'logs', one])).includes('Killed') || undefined
    await eventually('the end in the log', isToldOfItsEnd)
  })

  it('lists templates', async () => {
    expect(await output(['template', 'list'])).toContain('base')
  })

  it('kills', async () => {
    const one = (await output(['sandbox', 'create', '--detach'])).trim()
    await output(['sandbox', 'kill', one])
    const { code } = await e2b(['sandbox', 'info', one])
    expect(code).not.toBe(0)
  })
})
