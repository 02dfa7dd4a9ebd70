import { existsSync, readFileSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identify, lifelinePath, waitFor } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { LogFile } from './log-file.js'
import { Service, type ServiceDeath, type ServiceOptions } from './service.js'

let dir = ''
let deaths: ServiceDeath[] = []

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-cli-test-'))
  deaths = []
})

afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

function create(
  script: string,
  maxRestartDelayMs = 60_000,
  more: Partial<ServiceOptions> = {},
): { service: Service; log: LogFile } {
  const log = new LogFile(join(dir, 'child.log'))
  const service = new Service({
    name: 'child',
    program: '/bin/sh',
    args: ['-c', script],
    lifeline: lifelinePath(join(dir, 'child')),
    env: { PATH: '/usr/bin:/bin' },
    log,
    maxRestartDelayMs,
    ladder: () => [
      { signal: 'SIGTERM', graceMs: 200 },
      { signal: 'SIGKILL', graceMs: 5000 },
    ],
    onChange: () => {},
    onDeath: (death) => void deaths.push(death),
    ...more,
  })
  return { service, log }
}

const soon = { timeoutMs: 10_000, what: 'the child' }

describe('Service', () => {
  it('starts a child that dies again, later each time, and tells its last words', async () => {
    const { service, log } = create('echo dying; exit 7')
    service.start()
    await waitFor(() => (deaths.length >= 2 ? true : undefined), soon)
    await service.stop()
    expect(deaths[0]).toMatchObject({ name: 'child', how: 'code 7', lastLines: ['dying'] })
    expect(deaths[1]?.restartInMs).toBe((deaths[0]?.restartInMs ?? 0) * 2)
    await log.close()
    expect(await readFile(log.path, 'utf8')).toContain('dying')
  })

  it('waits no longer than it may, however often the child dies', async () => {
    const { service, log } = create('exit 7', 300)
    service.start()
    await waitFor(() => (deaths.length >= 4 ? true : undefined), soon)
    await service.stop()
    await log.close()
    expect(deaths.slice(0, 4).map(({ restartInMs }) => restartInMs)).toEqual([250, 300, 300, 300])
  })

  it('ends what a killed child has started before it starts it again, and when it is stopped', async () => {
    const list = join(dir, 'tools')
    const { service, log } = create(`sleep 600 & echo $! >>${list}; [ $(wc -l <${list}) = 2 ] || kill -9 $$; wait`)
    service.start()
    const tools = await waitFor(() => {
      const pids = existsSync(list) ? readFileSync(list, 'utf8').trim().split('\n').map(Number) : []
      return pids.length === 2 ? pids : undefined
    }, soon)
    expect(await identify(tools[0] ?? 0)).toBeUndefined()
    await service.stop()
    expect(await identify(tools[1] ?? 0)).toBeUndefined()
    await log.close()
  })

  it.runIf(process.getuid?.() === 0)(
    'runs a program as somebody who may not enter the folder that it lies in',
    async () => {
      await mkdir(join(dir, 'closed'), { mode: 0o700 })
      await copyFile('/bin/sh', join(dir, 'closed/sh'))
      const user = { uid: 64_914, gid: 64_915 }
      const program = { program: join(dir, 'closed/sh'), user, isOpened: true }
      const { service, log } = create('id -u; id -G; exec sleep 600', 60_000, program)
      service.start()
      await waitFor(() => (log.lastLines.length >= 2 ? true : undefined), soon)
      expect(log.lastLines).toEqual(['64914', '64915'])
      await service.stop()
      expect(deaths).toEqual([])
      await log.close()
    },
  )

  it('stops a child that ignores SIGTERM, and leaves it stopped', async () => {
    const { service, log } = create('trap "" TERM; echo up; while :; do sleep 1; done')
    service.start()
    await waitFor(() => (log.lastLines.includes('up') ? true : undefined), soon)
    await service.stop()
    expect(service.pid).toBeUndefined()
    expect(deaths).toEqual([])
    await log.close()
  })
})
