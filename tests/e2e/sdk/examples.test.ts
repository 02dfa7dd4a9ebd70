import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { installClients } from '../harness/e2b-clients.js'

const { platform } = usePlatform()
const root = fileURLToPath(new URL('../../..', import.meta.url))

/** What a program prints, which must end well. */
async function run(args: readonly string[], env: Readonly<Record<string, string>>, cwd = root): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [...args], {
    cwd,
    env: { ...process.env, ...env },
    timeout: 200_000,
  })
  return stdout
}

const example = async (name: string): Promise<string> =>
  await run(['--import', 'tsx', '--conditions=wrenn-source', join('examples', name)], {
    WRENN_API_URL: platform.url,
    WRENN_API_KEY: platform.apiKey,
    OPENAI_API_KEY: '',
  })

describe('the examples', () => {
  it('run a first program', async () => {
    const said = await example('quick-start.ts')
    expect(said).toContain('42')
    expect(said).toContain('tick 2')
    expect(said).toContain('exit code 0')
  })

  it('serve a web app, which a request wakes', async () => {
    const said = await example('web-app.ts')
    expect(said).toContain('answer: {"path": "/hello"')
    expect(said).toContain('paused: paused')
    expect(said).toContain('answer: {"path": "/again"')
  })

  it('let an agent break its machine and go back', async () => {
    const said = await example('agent.ts')
    expect(said).toContain('"exit_code":127')
    expect(said).toContain('the computer is as it was')
    expect(said).toContain('2 3 5 7 11')
    expect(said).toContain('DONE')
  })

  it('run a program made for E2B', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'wrenn-test-example-'))
    try {
      await mkdir(join(folder, 'node_modules'))
      await symlink(join(await installClients(), 'node_modules/e2b-2.51'), join(folder, 'node_modules/e2b'))
      await cp(join(root, 'examples/e2b.mjs'), join(folder, 'e2b.mjs'))
      const env = { E2B_API_URL: platform.url, E2B_SANDBOX_URL: platform.url, E2B_API_KEY: platform.apiKey }
      const said = await run(['e2b.mjs'], env, folder)
      for (const line of ['sorted: 1,2,3', 'tick 3', 'kept: 3 lines']) expect(said).toContain(line)
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
