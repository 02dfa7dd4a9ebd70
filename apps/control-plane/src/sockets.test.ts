import { type Capsule, decodeBinaryFrame, encodeBinaryFrame } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Frame, json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform
let capsule: Capsule
const at = (path: string): string => `/v1/capsules/${capsule.id}${path}`

beforeAll(async () => {
  platform = await startPlatform()
  capsule = await platform.create()
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

const shell = (line: string, more: object = {}): object => ({
  type: 'start',
  cmd: '/bin/sh',
  args: ['-c', line],
  ...more,
})
const textOf = (frames: readonly Frame[], type: string): string =>
  frames
    .filter((frame) => frame.type === type)
    .map(({ data }) => String(data))
    .join('')

describe('exec stream', () => {
  it('tells start, output and exit, and then closes', async () => {
    const socket = platform.open(at('/exec/stream'))
    await socket.send(shell('echo out; echo err >&2; exit 7'))
    const frames = await socket.until('exit')
    expect(frames[0]).toMatchObject({ type: 'start', pid: expect.any(Number), tag: expect.any(String) })
    expect(textOf(frames, 'stdout')).toBe('out\n')
    expect(textOf(frames, 'stderr')).toBe('err\n')
    expect(frames.at(-1)).toMatchObject({ exit_code: 7, offset: 8 })
    expect(await socket.frame()).toBeUndefined()
    expect(socket.closed?.code).toBe(1000)
  })

  it('carries environment, directory, input and signals', async () => {
    const socket = platform.open(at('/exec/stream'))
    await socket.send(
      shell('echo "$A $PWD"; cat; trap "echo usr1; exit 5" USR1; echo ready; while :; do sleep 0.02; done', {
        envs: { A: 'b' },
        cwd: '/tmp',
        stdin: true,
      }),
    )
    await socket.send({ type: 'stdin', data: Buffer.from('hello ').toString('base64') })
    await socket.send(encodeBinaryFrame('input', 0, Buffer.from('binary\n')))
    await socket.send({ type: 'stdin_close' })
    let seen = ''
    while (!seen.includes('ready')) seen += textOf([(await socket.frame()) ?? { type: 'closed' }], 'stdout')
    expect(seen).toMatch(/^b .*\/tmp\nhello binary\nready/)
    await socket.send({ type: 'signal', signal: 'SIGUSR1' })
    expect((await socket.until('exit')).at(-1)).toMatchObject({ exit_code: 5 })
  })

  it('keeps characters whole in text and bytes exact in base64', async () => {
    const split = "printf 'a\\303'; sleep 0.1; printf '\\244b\\377'"
    const text = platform.open(at('/exec/stream'))
    await text.send(shell(split))
    expect(textOf(await text.until('exit'), 'stdout')).toBe('aäb\ufffd')
    const exact = platform.open(at('/exec/stream'))
    await exact.send(shell(split, { encoding: 'base64' }))
    const frames = (await exact.until('exit')).filter(({ type }) => type === 'stdout')
    const bytes = Buffer.concat(frames.map(({ data }) => Buffer.from(String(data), 'base64')))
    expect(bytes).toEqual(Buffer.from([97, 0xc3, 0xa4, 98, 0xff]))
  })

  it('goes on when the socket closes and loses nothing for who comes back with an offset', async () => {
    const first = platform.open(at('/exec/stream'))
    await first.send(
      shell('i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.01; done', {
        encoding: 'base64',
        tag: 'keeper',
      }),
    )
    await first.frame()
    const seen: Buffer[] = []
    let offset = 0
    while (seen.length < 3) {
      const frame = await first.frame()
      const bytes = Buffer.from(String(frame?.data), 'base64')
      expect(frame?.offset).toBe(offset)
      offset += bytes.length
      seen.push(bytes)
    }
    first.raw.terminate()
    const again = platform.open(at(`/processes/keeper/stream?from_offset=${offset}&encoding=base64`))
    for (const { type, data } of await again.until('exit')) {
      if (type === 'stdout') seen.push(Buffer.from(String(data), 'base64'))
    }
    expect(Buffer.concat(seen).toString()).toBe(Array.from({ length: 60 }, (_, i) => `line ${i}\n`).join(''))
  })

  it('loses nothing when the host agent restarts meanwhile', async () => {
    const socket = platform.open(at('/exec/stream'))
    await socket.send(shell('i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.02; done'))
    const first = await socket.until('stdout')
    await platform.host.stop()
    await platform.host.start()
    const frames = [...first, ...(await socket.until('exit'))]
    expect(textOf(frames, 'stdout')).toBe(Array.from({ length: 60 }, (_, i) => `line ${i}\n`).join(''))
    expect(frames.filter(({ type }) => type === 'start')).toHaveLength(1)
    await platform.until(capsule.id, 'running')
  })

  it('sends large output as binary frames, complete and in order, to a reader that pauses', async () => {
    const size = 48 * 1024 * 1024
    const socket = platform.open(at('/exec/stream'), { protocol: 'wrenn.v1.binary' })
    await socket.send({ type: 'start', cmd: 'head', args: ['-c', String(size), '/dev/zero'] })
    await socket.frame()
    socket.raw.pause()
    // A stalled reader holds up nobody else.
    const other = await platform.call('POST', at('/exec'), { cmd: 'echo', args: ['meanwhile'] })
    expect(await json(other, 200)).toMatchObject({ stdout: 'meanwhile\n' })
    socket.raw.resume()
    let received = 0
    for (;;) {
      const message = await socket.message()
      if (message === undefined || !message.isBinary) break
      const frame = decodeBinaryFrame(message.data)
      expect(frame?.kind).toBe('stdout')
      expect(frame?.offset).toBe(received)
      received += frame?.payload.length ?? 0
    }
    expect(received).toBe(size)
  })

  it('is stopped with all its children', async () => {
    const socket = platform.open(at('/exec/stream'))
    await socket.send(shell('sleep 600 & wait'))
    await socket.frame()
    await socket.send({ type: 'stop' })
    expect((await socket.until('exit')).at(-1)).toMatchObject({ exit_code: 137, signal: 9 })
  })

  it('tells a timeout', async () => {
    const socket = platform.open(at('/exec/stream'))
    await socket.send(shell('sleep 600', { timeout_sec: 0.2 }))
    expect((await socket.until('exit')).at(-1)).toMatchObject({ exit_code: 124, timed_out: true })
  })
})

describe('handshake', () => {
  it('takes an API key as the first message', async () => {
    const socket = platform.open(at('/exec/stream'), { key: undefined })
    await socket.send({ type: 'auth', api_key: platform.key })
    await socket.send(shell('echo in'))
    expect(textOf(await socket.until('exit'), 'stdout')).toBe('in\n')
  })

  it('refuses a wrong key, in the header before the upgrade and in the message by an error frame', async () => {
    await expect(platform.open(at('/exec/stream'), { key: 'wrn_wrong' }).opened()).rejects.toThrow('401')
    const socket = platform.open(at('/exec/stream'), { key: undefined })
    await socket.send({ type: 'auth', token: 'wrn_wrong' })
    expect(await socket.frame()).toMatchObject({ type: 'error', code: 'unauthorized', fatal: true })
    expect(await socket.frame()).toBeUndefined()
    expect(socket.closed?.code).toBe(1008)
  })

  it('answers nonsense with an error frame', async () => {
    for (const nonsense of [{ type: 'stop' }, { type: 'start' }, { type: 'start', cmd: 'a\0b' }]) {
      const socket = platform.open(at('/exec/stream'))
      await socket.send(nonsense)
      expect(await socket.frame()).toMatchObject({ type: 'error', code: 'invalid_request', fatal: true })
    }
    const socket = platform.open(at('/exec/stream'))
    await socket.opened()
    socket.raw.send('{not json')
    expect(await socket.frame()).toMatchObject({ type: 'error', code: 'invalid_request' })
  })

  it('names a process and a capsule that do not exist', async () => {
    const process = platform.open(at('/processes/4242424/stream'))
    expect(await process.frame()).toMatchObject({ type: 'error', code: 'process_not_found', fatal: true })
    const other = platform.open(`/v1/capsules/cl-${'0'.repeat(25)}/pty`)
    expect(await other.frame()).toMatchObject({ type: 'error', code: 'capsule_not_found', fatal: true })
  })

  it('is 400 for a plain request', async () => {
    await json(await platform.call('GET', at('/pty')), 400)
  })
})

describe('pty', () => {
  const input = (text: string) => ({ type: 'input', data: Buffer.from(text).toString('base64') })

  it('types, resizes, outlives its socket and is taken up again with an offset', async () => {
    const socket = platform.open(at('/pty'))
    await socket.send({ type: 'start', cmd: '/bin/sh', cols: 91, rows: 33, envs: { PS1: '> ' } })
    const started = await socket.frame()
    expect(started).toMatchObject({ type: 'started', tag: expect.stringMatching(/^pty-/), pid: expect.any(Number) })
    let offset = 0
    const readUntil = async (from: typeof socket, text: string | RegExp): Promise<string> => {
      let seen = ''
      for (;;) {
        const frame = await from.frame()
        if (frame === undefined) throw new Error(`closed: ${seen}`)
        if (frame.type !== 'output') continue
        const bytes = Buffer.from(String(frame.data), 'base64')
        offset = Number(frame.offset) + bytes.length
        seen += bytes.toString()
        if (seen.match(text)) return seen
      }
    }
    await socket.send(input('stty size\n'))
    await readUntil(socket, '33 91')
    await socket.send({ type: 'resize', cols: 100, rows: 40 })
    await socket.send(input('until [ "$(stty size)" = "40 100" ]; do sleep 0.02; done; echo resi""zed\n'))
    await readUntil(socket, 'resized')
    socket.raw.terminate()
    const again = platform.open(at('/pty'))
    await again.send({ type: 'connect', tag: started?.tag, from_offset: offset })
    expect(await again.frame()).toMatchObject({ type: 'started', tag: started?.tag, pid: started?.pid })
    await again.send(input('echo ba""ck\n'))
    await readUntil(again, 'back')
    await again.send({ type: 'kill' })
    expect((await again.until('exit')).at(-1)).toMatchObject({ type: 'exit', signal: 9 })
  })
})
