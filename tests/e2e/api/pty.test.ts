import { describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'
import { endOf, type Frame, outputOf, Stream } from '../harness/stream.js'

const { platform } = usePlatform()
const capsule = useCapsule()

const open = (frame: object = {}): Promise<Stream> =>
  Stream.start(platform, capsule(), 'pty', {
    cmd: '/bin/bash',
    args: ['--norc', '--noprofile'],
    envs: { PS1: '> ', TERM: 'dumb' },
    ...frame,
  })

describe('a terminal', () => {
  it('echoes what is typed, runs it and ends with its exit code', async () => {
    await using pty = await open()
    expect(await pty.next()).toMatchObject({ type: 'started', pid: expect.any(Number), tag: expect.any(String) })
    pty.sendInput('input', 'tty; echo $((6 * 7))\n')
    const output = await pty.untilOutput('\r\n42\r\n')
    expect(output).toContain('echo $((6 * 7))')
    expect(output).toMatch(/\/dev\/pts\/\d+/)
    pty.sendInput('input', 'exit 6\n')
    expect((await pty.untilExit()).exit).toMatchObject({ exit_code: 6 })
    expect(await pty.closed).toBe(1000)
  })

  it('speaks UTF-8: its locale, lengths, and a backspace takes a whole character back', async () => {
    await using pty = await open({ args: ['--login', '--norc'] })
    pty.sendInput('input', `locale charmap; v=é; echo "len""gth \${#v}"\n`)
    expect(await pty.untilOutput('length 1')).toContain('\r\nUTF-8\r\n')
    // The kernel's line editing, not that of the shell.
    pty.sendInput('input', `sh -c 'echo rea""dy; read -r line; printf "<%s>" "$line" | od -An -c'\n`)
    await pty.untilOutput('ready')
    pty.sendInput('input', 'aé\u007f\n')
    await pty.untilOutput('<   a   >')
    pty.send({ type: 'kill' })
    await pty.untilExit()
  })

  it('has the size it was given, and the one it is changed to', async () => {
    await using pty = await open({ cols: 101, rows: 31 })
    pty.sendInput('input', 'stty size\n')
    await pty.untilOutput('31 101')
    pty.sendInput('input', 'trap "echo changed; stty size" WINCH; echo armed\n')
    await pty.untilOutput('\r\narmed')
    pty.send({ type: 'resize', cols: 77, rows: 22 })
    pty.sendInput('input', '\n')
    await pty.untilOutput('22 77')
    pty.send({ type: 'kill' })
    expect((await pty.untilExit()).exit).toMatchObject({ signal: 9 })
  })

  it('passes ^C to what runs in it, and ^D ends the shell', async () => {
    await using pty = await open()
    // What says "before" has the terminal already. While bash starts it, a ^C may go to bash itself, which then waits on.
    pty.sendInput('input', `sh -c 'echo be""fore; exec sleep 1000'\n`)
    await pty.untilOutput('before')
    pty.sendInput('input', '\u0003')
    await pty.untilOutput('> ')
    pty.sendInput('input', 'echo "code $?"\n')
    // Only at its prompt does bash read a ^D as the end: before, the terminal makes a NUL of it.
    await pty.untilOutput('code 130\r\n> ')
    pty.sendInput('input', '\u0004')
    expect((await pty.untilExit()).exit.exit_code).toBe(0)
  })

  it('is still there when the connection was lost, and shows what was missed', async () => {
    const frames: Frame[] = []
    const first = await open({ tag: 'kept-terminal' })
    first.sendInput('input', 'echo be""fore; read -r gate; echo mis""sed\n')
    frames.push(...(await first.until((frame) => frame.type === 'output' && outputOf([frame]).includes('before'))))
    first.drop()
    await first.closed
    await using typist = await connect({})
    typist.sendInput('input', 'go\n')
    await typist.untilOutput('missed')
    await using second = await connect({ from_offset: endOf(frames) })
    await second.untilOutput('missed')
    await using third = await connect({ from_offset: 0 })
    const all = await third.untilOutput('missed')
    expect(all).toContain('before')
    third.sendInput('input', 'exit\n')
    expect((await second.untilExit()).exit.exit_code).toBe(0)
  })

  it('runs as the user, in the directory and with the envs it was given', async () => {
    await using pty = await open({
      cmd: '/bin/sh',
      args: ['-c', 'echo "$(id -un) $(pwd) $COLOUR"'],
      user: 'user',
      cwd: '/usr/share',
      envs: { COLOUR: 'blue' },
    })
    expect((await pty.untilExit()).output.toString()).toBe('user /usr/share blue\r\n')
  })

  it('takes no program for an option of its own tools', async () => {
    await using pty = await open({ cmd: '--version', args: [] })
    const { output, exit } = await pty.untilExit()
    expect([exit.exit_code, output.toString()]).toEqual([127, expect.stringContaining('--version')])
  })

  it('does not lose the end of what it printed', async () => {
    await using pty = await open({ cmd: '/bin/sh', args: ['-c', 'seq 1 20000'] })
    const { output } = await pty.untilExit()
    const expected = Array.from({ length: 20_000 }, (_, index) => `${index + 1}\r\n`).join('')
    expect(output.toString() === expected).toBe(true)
  })

  it('is not there under a tag that nobody gave', async () => {
    await using pty = await connect({ tag: 'no-such-terminal' })
    expect(await pty.next()).toMatchObject({ type: 'error', code: 'process_not_found', fatal: true })
  })

  async function connect(options: object): Promise<Stream> {
    const stream = await Stream.open(platform, `${capsule().path}/pty`)
    stream.send({ type: 'connect', tag: 'kept-terminal', ...options })
    return stream
  }
})
