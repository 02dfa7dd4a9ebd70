import { afterEach, describe, expect, it, vi } from 'vitest'
import { runCommand } from './command.js'

afterEach(() => vi.unstubAllEnvs())

describe('runCommand', () => {
  it('passes on what the machine sets for its tools, and nothing of our settings', async () => {
    vi.stubEnv('https_proxy', 'http://proxy.test')
    vi.stubEnv('WRENN_OBJECT_STORE_SECRET_KEY', 'not a secret')
    const { stdout } = await runCommand('env', [])
    expect(stdout.toString()).toContain('https_proxy=http://proxy.test')
    expect(stdout.toString()).not.toContain('WRENN_')
  })

  it('names the Debian package of a tool that is missing', async () => {
    await expect(runCommand('no-such-tool', [], { debianPackage: 'tool-package' })).rejects.toMatchObject({
      code: 'invalid_config',
      message: expect.stringContaining('apt-get install tool-package'),
    })
  })

  it('fails with the last lines of stderr and without the hosts in them', async () => {
    const failing = runCommand('sh', ['-c', 'echo first >&2; echo "from https://user:pw@host.test/x" >&2; exit 3'])
    await expect(failing).rejects.toMatchObject({
      code: 'image_build_failed',
      message: 'sh failed with status 3: first\nfrom https://…/x',
    })
  })

  it('ends the command at its deadline', async () => {
    await expect(runCommand('sleep', ['60'], { timeoutMs: 50 })).rejects.toMatchObject({ code: 'timeout' })
  })

  it('ends the command when aborted and rejects with the reason', async () => {
    const reason = new Error('stopped by a person')
    const controller = new AbortController()
    const running = runCommand('sleep', ['60'], { signal: controller.signal })
    controller.abort(reason)
    await expect(running).rejects.toBe(reason)
  })
})
