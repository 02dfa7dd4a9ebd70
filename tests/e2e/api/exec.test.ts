import { describe, expect, it } from 'vitest'
import { useCapsule } from '../harness/api.js'

const capsule = useCapsule({ envs: { FROM_CAPSULE: 'yes', OVERRIDDEN: 'capsule' } })

describe('running a command', () => {
  it('gives output, errors and exit code apart', async () => {
    expect(await capsule().sh('echo out; echo err >&2; exit 3')).toMatchObject({
      stdout: 'out\n',
      stderr: 'err\n',
      exit_code: 3,
      encoding: 'utf-8',
      timed_out: false,
      truncated: false,
      capsule_id: capsule().id,
      pid: expect.any(Number),
    })
  })

  it('adds its envs to those of the capsule', async () => {
    const { stdout } = await capsule().sh('echo "$FROM_CAPSULE $OVERRIDDEN $ADDED"', {
      envs: { OVERRIDDEN: 'exec', ADDED: 'a b\nc "ü"' },
    })
    expect(stdout).toBe('yes exec a b\nc "ü"\n')
  })

  it('passes arguments as they are, without a shell', async () => {
    const args = ['%s|', '', 'a b', '$HOME', '*', '"quoted"', 'ü\n']
    expect((await capsule().exec('printf', args)).stdout).toBe('|a b|$HOME|*|"quoted"|ü\n|')
  })

  it('runs in the directory and as the user that were asked for', async () => {
    expect(await capsule().text('echo "$(pwd) $(id -un) $HOME"', { user: 'user' })).toBe('/home/user user /home/user')
    expect(await capsule().text('pwd', { cwd: '/var/log' })).toBe('/var/log')
    expect(await capsule().text('sudo -n id -u', { user: 'user' })).toBe('0')
  })

  it('feeds stdin and ends it, and gives no input without one', async () => {
    expect((await capsule().exec('wc', ['-c'], { stdin: 'x'.repeat(100_000) })).stdout.trim()).toBe('100000')
    const binary = Buffer.from([0, 1, 254, 255]).toString('base64')
    const echoed = await capsule().exec('cat', [], { stdin: binary, stdin_encoding: 'base64' })
    expect([echoed.encoding, echoed.stdout]).toEqual(['base64', binary])
    expect((await capsule().exec('cat')).stdout).toBe('')
  })

  it('carries output that is not UTF-8 as base64', async () => {
    const result = await capsule().sh("printf '\\377\\000\\001'; echo text >&2")
    expect(result.encoding).toBe('base64')
    expect([...Buffer.from(result.stdout, 'base64')]).toEqual([255, 0, 1])
    expect(Buffer.from(result.stderr, 'base64').toString()).toBe('text\n')
  })

  it('carries megabytes of output unharmed', async () => {
    const { stdout } = await capsule().sh('seq 1 200000')
    const expected = Array.from({ length: 200_000 }, (_, index) => `${index + 1}\n`).join('')
    expect(stdout === expected).toBe(true)
  })

  it('says 128 + n when signal n ended it', async () => {
    expect(await capsule().sh('kill -KILL $$')).toMatchObject({ exit_code: 137, signal: 9 })
    expect(await capsule().sh('kill -TERM $$')).toMatchObject({ exit_code: 143, signal: 15 })
  })

  it('kills the whole tree after timeout_sec and answers with the output so far', async () => {
    const result = await capsule().sh('echo before; sleep 1000 & (setsid sleep 1001 &) ; sleep 1002', {
      timeout_sec: 1,
    })
    expect(result).toMatchObject({
      stdout: 'before\n',
      exit_code: 124,
      timed_out: true,
      hint: expect.stringContaining('timeout_sec'),
    })
    expect(await capsule().text('pgrep -a sleep || echo none')).toBe('none')
  })

  it('says 127 for a program that does not exist and 126 for one that cannot run, as a shell does', async () => {
    for (const cmd of ['/no/such/program', 'no-such-program']) {
      expect(await capsule().exec(cmd)).toMatchObject({ exit_code: 127, stderr: expect.stringContaining(cmd) })
    }
    expect((await capsule().sh('no-such-program')).exit_code).toBe(127)
    expect(await capsule().exec('/etc/passwd')).toMatchObject({ exit_code: 126 })
  })

  it('names the user that does not exist', async () => {
    expect(await refusal({ cmd: 'true', user: 'nobody-here' })).toMatchObject({
      status: 400,
      code: 'invalid_request',
      message: expect.stringContaining('nobody-here'),
    })
  })

  it('names the directory that does not exist', async () => {
    expect(await refusal({ cmd: 'true', cwd: '/no/such/dir' })).toMatchObject({
      status: 400,
      code: 'invalid_request',
      message: expect.stringContaining('/no/such/dir'),
    })
  })

  it('refuses a request without a command, and a NUL byte', async () => {
    expect(await refusal({})).toMatchObject({
      status: 400,
      code: 'invalid_request',
      message: expect.stringContaining('cmd'),
    })
    expect(await refusal({ cmd: 'echo', args: ['a\0b'] })).toMatchObject({ status: 400, code: 'invalid_request' })
  })

  it('kills the tree when the caller hangs up', async () => {
    const leaving = new AbortController()
    const asked = capsule().api.call('POST', `${capsule().path}/exec`, {
      json: { cmd: '/bin/sh', args: ['-c', 'touch /tmp/hang-up; sleep 2000'] },
      signal: leaving.signal,
    })
    await capsule().text('until test -e /tmp/hang-up; do sleep 0.05; done')
    leaving.abort()
    await expect(asked).rejects.toThrow()
    await capsule().text("while pgrep -f 'sleep 2000' | grep -vw $$ >/dev/null; do sleep 0.05; done")
  })

  it('runs commands side by side', async () => {
    const results = await Promise.all(
      Array.from({ length: 8 }, (_, index) => capsule().sh(`echo ${index}; echo "e${index}" >&2; exit ${index}`)),
    )
    expect(results.map(({ stdout, stderr, exit_code }) => [stdout, stderr, exit_code])).toEqual(
      Array.from({ length: 8 }, (_, index) => [`${index}\n`, `e${index}\n`, index]),
    )
  })

  async function refusal(json: object) {
    return await capsule().api.refusal('POST', `${capsule().path}/exec`, { json })
  }
})
