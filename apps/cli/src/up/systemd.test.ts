import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { notifyReady, renderUnit } from './systemd.js'

let dir = ''
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-systemd-test-'))
})
afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

const has = (tool: string): boolean => spawnSync(tool, ['--version']).error === undefined
const command = ['/bin/true', 'up', '--dir', '/srv/my wrenn/100%']

describe('the systemd unit', () => {
  it('starts the platform of a directory, whatever its name, and leaves nothing to be filled in', async () => {
    const text = await renderUnit({ name: 'wrenn', dir: '/srv/my wrenn/100%', command })
    expect(text).toContain('EnvironmentFile=-/etc/default/wrenn\n')
    expect(text).toContain('ExecStart=/bin/true up --dir "/srv/my wrenn/100%%"\n')
    expect(text).not.toMatch(/@[A-Z]+@/)
  })

  it('keeps capsules out of what it ends, and mounts in sight of the machine', async () => {
    const text = await renderUnit({ name: 'wrenn', dir: '/var/lib/wrenn', command })
    expect(text).toMatch(/^KillMode=process$/m)
    expect(text).toMatch(/^Delegate=yes$/m)
    expect(text).not.toMatch(/^(Protect\w+|Private\w+|ReadWritePaths|ReadOnlyPaths|InaccessiblePaths|MountFlags)=/m)
  })

  it.skipIf(!has('systemd-analyze'))('is understood by systemd, every line of it (needs systemd-analyze)', async () => {
    const unit = join(dir, 'wrenn-test.service')
    await writeFile(unit, await renderUnit({ name: 'wrenn-test', dir: '/srv/my wrenn', command }))
    const { stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', unit], { encoding: 'utf8' })
    expect(stderr.split('\n').filter((line) => line.includes('wrenn-test'))).toEqual([])
  })
})

describe('who waits for the platform', () => {
  it('is nobody where no service manager has started it', async () => {
    expect(await notifyReady(undefined, 'ready')).toBeUndefined()
  })

  it('may be gone, which ends nothing', async () => {
    expect(await notifyReady(join(dir, 'gone'), 'ready')).toMatch(/systemd-notify/)
  })

  it.skipIf(!has('systemd-notify') || spawnSync('socat', ['-V']).error !== undefined)(
    'is told at the socket that it names (needs systemd-notify and socat)',
    async () => {
      const socket = join(dir, 'notify')
      const manager = spawn('socat', ['-u', `UNIX-RECV:${socket}`, 'STDOUT'], { stdio: ['ignore', 'pipe', 'inherit'] })
      let heard = ''
      manager.stdout.on('data', (text: Buffer) => {
        heard += text.toString()
      })
      try {
        await expect.poll(() => existsSync(socket)).toBe(true)
        expect(await notifyReady(socket, 'Ready at http://127.0.0.1:8000')).toBeUndefined()
        await expect.poll(() => heard).toContain('STATUS=Ready at http://127.0.0.1:8000')
        expect(heard).toContain('READY=1')
      } finally {
        manager.kill()
      }
    },
  )
})
