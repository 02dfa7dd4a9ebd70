import { createHash } from 'node:crypto'
import { BINARY_SUBPROTOCOL } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'
import { bytesOf, endOf, type Frame, outputOf, Stream } from '../harness/stream.js'

const { platform } = usePlatform()
const capsule = useCapsule()

const sh = (line: string, options: object = {}): object => ({ cmd: '/bin/sh', args: ['-c', line], ...options })
const exec = (frame: object, protocols: readonly string[] = []): Promise<Stream> =>
  Stream.start(platform, capsule(), 'exec/stream', frame, { protocols })
const resume = (tag: string, fromOffset: number): Promise<Stream> =>
  Stream.open(platform, `${capsule().path}/processes/${tag}/stream?from_offset=${fromOffset}&encoding=base64`)

describe('streaming a command', () => {
  it('tells start, output of both streams with offsets, and exit', async () => {
    await using stream = await exec(sh('echo one; read -r line; echo "$line" >&2; exit 4', { stdin: true }))
    expect(await stream.next()).toMatchObject({ type: 'start', pid: expect.any(Number), tag: expect.any(String) })
    expect(await stream.next()).toMatchObject({ type: 'stdout', data: 'one\n', offset: 0 })
    stream.sendInput('stdin', 'two\n')
    expect(await stream.next()).toMatchObject({ type: 'stderr', data: 'two\n', offset: 4 })
    expect(await stream.next()).toMatchObject({ type: 'exit', exit_code: 4, offset: 8 })
    expect(await stream.closed).toBe(1000)
  })

  it('carries input until it is closed', async () => {
    await using stream = await exec({ cmd: 'sha256sum', stdin: true })
    const content = Buffer.alloc(1_000_000, 'input ')
    for (let at = 0; at < content.length; at += 100_000) stream.sendInput('stdin', content.subarray(at, at + 100_000))
    stream.send({ type: 'stdin_close' })
    const { output } = await stream.untilExit()
    expect(output.toString()).toContain(createHash('sha256').update(content).digest('hex'))
  })

  it('speaks binary frames to those who ask for them', async () => {
    await using stream = await exec(sh('cat; printf "\\377" >&2', { stdin: true }), [BINARY_SUBPROTOCOL])
    expect(await stream.next()).toMatchObject({ type: 'start' })
    stream.sendBinary(new Uint8Array([0, 255, 10, 13]))
    stream.send({ type: 'stdin_close' })
    const { frames, exit } = await stream.untilExit()
    const binary = frames.filter((frame) => frame.type === 'binary')
    expect(binary.filter(({ kind }) => kind === 'stdout').flatMap(({ payload }) => [...payload])).toEqual([
      0, 255, 10, 13,
    ])
    expect(binary.filter(({ kind }) => kind === 'stderr').flatMap(({ payload }) => [...payload])).toEqual([255])
    expect(exit).toMatchObject({ exit_code: 0, offset: 5 })
  })

  it('keeps a byte order mark, and characters that are cut in two, in text', async () => {
    const line = String.raw`printf '\357\273\277a\303'; sleep 0.3; printf '\251\357'; sleep 0.3; printf '\273\277'`
    await using stream = await exec(sh(line))
    const { frames, output } = await stream.untilExit()
    expect(output.toString()).toBe('\uFEFFaé\uFEFF')
    expect(endOf(frames)).toBe(9)
  })

  it('goes at the pace of the reader that reads, and has all for the one that stalled when it reads on', async () => {
    const bytes = 24 * 1024 * 1024
    await using slow = await exec(sh(`read -r line; head -c ${bytes} /dev/zero`, { stdin: true, tag: 'two' }), [
      BINARY_SUBPROTOCOL,
    ])
    expect(await slow.next()).toMatchObject({ type: 'start' })
    slow.stall()
    const path = `${capsule().path}/processes/two/stream?from_offset=0`
    await using quick = await Stream.open(platform, path, { protocols: [BINARY_SUBPROTOCOL] })
    expect(await quick.next()).toMatchObject({ type: 'start' })
    slow.sendInput('stdin', 'go\n')
    const seen = await quick.untilExit()
    expect([seen.output.length, seen.exit.exit_code]).toEqual([bytes, 0])
    slow.readOn()
    const late = await slow.untilExit()
    expect([late.output.length, late.exit.exit_code]).toEqual([bytes, 0])
  })

  it('passes signals on, and stop kills the tree', async () => {
    await using polite = await exec(sh('trap "echo bye; exit 7" INT; echo ready; while :; do sleep 0.1; done'))
    await polite.untilOutput('ready')
    polite.send({ type: 'signal', signal: 'SIGINT' })
    const { output, exit } = await polite.untilExit()
    expect(output.toString()).toBe('bye\n')
    expect(exit.exit_code).toBe(7)
    await using stubborn = await exec(sh('trap "" TERM INT; sleep 1000 & echo ready; wait'))
    await stubborn.untilOutput('ready')
    stubborn.send({ type: 'stop' })
    expect((await stubborn.untilExit()).exit).toMatchObject({ exit_code: 137, signal: 9 })
    expect(await capsule().text('pgrep -a sleep || echo none')).toBe('none')
  })

  it('goes on without its socket, and from_offset loses nothing however often the connection drops', async () => {
    const lines = 30_000
    const expected = Array.from({ length: lines }, (_, index) => `line ${index + 1}\n`).join('')
    const tag = 'unbreakable'
    const line = `i=0; while [ $i -lt 30 ]; do seq -f "line %.0f" $((i * 1000 + 1)) $((i * 1000 + 1000)); i=$((i + 1)); sleep 0.05; done`
    const received: Frame[] = []
    let stream = await exec(sh(line, { tag, encoding: 'base64' }))
    for (let drops = 0; ; drops += 1) {
      const frames = await stream.until((frame) => frame.type === 'exit' || (drops < 6 && bytesOf(frame).length > 0))
      received.push(...frames)
      if (frames.at(-1)?.type === 'exit') break
      stream.drop()
      stream = await resume(tag, endOf(received))
    }
    await stream.closed
    expect(outputOf(received).toString() === expected).toBe(true)
    expect(received.filter(({ type }) => type === 'lost')).toEqual([])
  })

  it('lets several follow one process, from its beginning or from now', async () => {
    await using first = await exec(sh('echo start; read -r x; echo "end $x"', { tag: 'shared', stdin: true }))
    await first.untilOutput('start')
    await using fromStart = await resume('shared', 0)
    await using fromNow = await Stream.open(platform, `${capsule().path}/processes/shared/stream`)
    expect(await fromNow.next()).toMatchObject({ type: 'start' })
    await fromStart.untilOutput('start')
    fromStart.sendInput('stdin', 'ok\n')
    expect((await first.untilExit()).output.toString()).toBe('end ok\n')
    expect((await fromNow.untilExit()).output.toString()).toBe('end ok\n')
    expect((await fromStart.untilExit()).output.toString()).toBe('end ok\n')
  })

  it('takes the key in the first frame, and closes when it is wrong', async () => {
    const path = `${capsule().path}/exec/stream`
    await using stream = await Stream.open(platform, path, { headers: {} })
    stream.send({ type: 'auth', api_key: platform.apiKey })
    stream.send({ type: 'start', cmd: 'echo', args: ['hello'] })
    expect((await stream.untilExit()).output.toString()).toBe('hello\n')
    await using refused = await Stream.open(platform, path, { headers: {} })
    refused.send({ type: 'auth', api_key: 'wrn_00000000000000000000000000000000' })
    expect(await refused.next()).toMatchObject({ type: 'error', code: 'unauthorized', fatal: true })
    expect(await refused.closed).toBe(1008)
  })

  it('answers a bad frame and goes on', async () => {
    await using stream = await exec({ cmd: 'cat', stdin: true })
    await stream.until(({ type }) => type === 'start')
    stream.send({ type: 'nonsense' })
    expect(await stream.next()).toMatchObject({ type: 'error', code: 'invalid_request', fatal: false })
    stream.sendInput('stdin', 'still here')
    stream.send({ type: 'stdin_close' })
    expect((await stream.untilExit()).output.toString()).toBe('still here')
  })

  it('says why it cannot start', async () => {
    await using missing = await exec({ cmd: 'no-such-program' })
    expect((await missing.untilExit()).exit).toMatchObject({ exit_code: 127 })
    await using user = await exec({ cmd: 'true', user: 'nobody-here' })
    expect(await user.next()).toMatchObject({ type: 'error', code: 'invalid_request', fatal: true })
  })
})
