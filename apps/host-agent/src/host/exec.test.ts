import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AppError } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { run, runForResult } from './exec.js'

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => AppError.from(error).code,
  )

describe('run', () => {
  it('gives stdin to the command and its stdout back', async () => {
    expect(await run('cat', [], { input: 'hello' })).toBe('hello')
  })

  it('fails with the last stderr lines of the command', async () => {
    await expect(run('sh', ['-c', 'echo first >&2; echo why >&2; exit 3'])).rejects.toThrow(/exit code 3: first \/ why/)
    expect((await runForResult('sh', ['-c', 'exit 3'])).exitCode).toBe(3)
  })

  it('kills the command at its deadline', async () => {
    expect(await codeOf(run('sleep', ['60'], { timeoutMs: 50 }))).toBe('timeout')
  })

  it('kills the command when the caller aborts, with the caller’s reason', async () => {
    const abort = new AbortController()
    const running = run('sleep', ['60'], { signal: abort.signal })
    abort.abort(new AppError('conflict', 'enough'))
    expect(await codeOf(running)).toBe('conflict')
  })

  it('has ended with all that it started when the caller is told that it was broken off', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-exec-'))
    const abort = new AbortController()
    const script = `(touch begun; sleep 0.5; touch late) & sleep 60`
    const running = run('sh', ['-c', `cd ${dir}; ${script}`], { signal: abort.signal })
    await expect.poll(() => readdir(dir)).toEqual(['begun'])
    abort.abort(new AppError('conflict', 'enough'))
    expect(await codeOf(running)).toBe('conflict')
    expect(await readdir(dir)).toEqual(['begun', 'late'])
    await rm(dir, { recursive: true })
  })

  it('refuses endless output but keeps the end of long error text', async () => {
    expect(await codeOf(run('sh', ['-c', 'yes | head -c 100000'], { maxOutputBytes: 1000 }))).toBe('engine_failure')
    // Neither ends by itself.
    expect(await codeOf(run('yes', [], { maxOutputBytes: 1000 }))).toBe('engine_failure')
    expect(await codeOf(run('sh', ['-c', 'yes | cat; true'], { maxOutputBytes: 1000 }))).toBe('engine_failure')
    await expect(
      run('sh', ['-c', 'yes | head -c 100000 >&2; echo end >&2; exit 1'], { maxOutputBytes: 1000 }),
    ).rejects.toThrow(/end/)
  })

  it('says when a program is missing', async () => {
    await expect(run('no-such-program', [])).rejects.toThrow(/not installed/)
  })
})
