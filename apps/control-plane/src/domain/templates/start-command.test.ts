import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { BuildGuest } from './guest.js'
import { listeningOn, type StartDeps, startAndWait, startOf } from './start-command.js'

const container = { entrypoint: ['/in', '-e'], command: ['serve'], ports: [80] }

describe('what is to run in a template', () => {
  it.each([
    ['the image', {}, 'exec /in -e serve', true],
    ['a command', { command: ['other'] }, 'exec /in -e other', false],
    ['an entry point, for which the command of the image was not', { entrypoint: ['/own'] }, 'exec /own', false],
    ['both', { entrypoint: ['/own'], command: ['x y'] }, "exec /own 'x y'", false],
    ['neither, which is said', { entrypoint: [], command: [] }, undefined, false],
    ['a line for a shell', { startCmd: 'a | b' }, 'a | b', false],
  ])('is said by %s', (_, said, startCmd, isOfImage) => {
    const ports = [80]
    expect(startOf(said, { container })).toEqual({ ...(startCmd === undefined ? {} : { startCmd }), isOfImage, ports })
  })

  it('is what an archive brings, unless something else is said', () => {
    const archived = { startCmd: 'serve', readyCmd: 'test -e up' }
    const rest = { isOfImage: false, ports: [] }
    expect(startOf({}, archived)).toEqual({ ...archived, ...rest })
    expect(startOf({ readyCmd: 'true' }, archived)).toEqual({ readyCmd: 'true', ...rest })
    expect(startOf({ entrypoint: [], command: [] }, archived)).toEqual(rest)
  })

  it('serves the ports that plan and image say', () => {
    expect(startOf({ ports: [8080, 80] }, { container }).ports).toEqual([8080, 80])
  })

  it('becomes a template all the same where nobody listens in the end', async () => {
    const said: string[] = []
    const log = {
      say: (_: string, message: string) => said.push(message),
      stream: () => ({ write() {}, async end() {} }),
    }
    const run: BuildGuest['run'] = async ({ args }, _, signal) => {
      if (args[1]?.includes('/proc/net/tcp')) return 1
      return await new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
    }
    const deps = { guest: { run }, log, step: 'finalize', readyWithinMs: 50, signal: new AbortController().signal }
    const start = { startCmd: 'serve', isOfImage: false, ports: [1, 2] }
    const state = { user: 'root', cwd: '/', envs: {} }
    expect(await startAndWait(deps as unknown as StartDeps, start, state)).toEqual({ startCmd: 'serve' })
    expect(said).toEqual([
      'Starting: serve',
      'Waiting until somebody listens on port 1, 2.',
      'Nobody listens on port 1, 2 after 0.05 s; the template is kept as it is.',
    ])
  })

  it('is read by a shell as the words that it was', () => {
    const words = ['plain', '', "it's", 'a  b', '$HOME `id` $(id)', '*', '\\', '"', 'a\nb', '-n', '~', 'x=1', '#']
    const { startCmd = '' } = startOf({ entrypoint: ['/usr/bin/printf', '%s\\0'], command: words }, {})
    const read = execFileSync('/bin/sh', ['-c', startCmd], { encoding: 'utf8' })
    expect(read.split('\0').slice(0, -1)).toEqual(words)
  })

  it.each(['127.0.0.1', '::1'])('is seen to listen at %s, and not to have connections', async (address) => {
    const isListening = (...ports: number[]) => spawnSync('/bin/bash', ['-c', listeningOn(ports)]).status === 0
    const server = createServer().listen(0, address)
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    expect([isListening(port), isListening(1, port), isListening(1)]).toEqual([true, true, false])
    const client = connect(port, address)
    await once(client, 'connect')
    server.close()
    await expect.poll(() => isListening(port)).toBe(false)
    client.destroy()
  })
})
