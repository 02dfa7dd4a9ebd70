import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { boundCommand } from './bound-command.js'
import { identify, isRunning } from './process-id.js'
import { waitFor } from './wait.js'

async function run([program, ...args]: readonly [string, ...string[]]): Promise<{ code: unknown; said: string }> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const [said, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  return { code, said }
}

const isRoot = process.getuid?.() === 0

describe('boundCommand', () => {
  it('starts the program with its arguments as they are', async () => {
    const words = ['a b', '$HOME', '"', '']
    const { code, said } = await run(boundCommand('/usr/bin/printf', ['%s\\n', ...words], { signal: 'TERM' }))
    expect([code, said]).toEqual([0, words.map((word) => `${word}\n`).join('')])
  })

  it.runIf(isRoot)('starts it as somebody else, who has no other groups and gains no rights', async () => {
    const who = { uid: 64_910, gid: 64_911 }
    const { said } = await run(boundCommand('/bin/cat', ['/proc/self/status'], { signal: 'TERM', user: who }))
    expect(said).toMatch(/^Uid:(\s+64910){4}$/m)
    expect(said).toMatch(/^Gid:(\s+64911){4}$/m)
    expect(said).toMatch(/^Groups:\s*$/m)
    expect(said).toMatch(/^NoNewPrivs:\s+1$/m)
    expect(said).toMatch(/^CapEff:\s+0+$/m)
  })

  it.runIf(isRoot)('ends it when its starter is killed, whoever it runs as', async () => {
    const program = `
      import { spawn } from 'node:child_process'
      import { boundCommand } from '@wrenn/base'
      const [program, ...args] = boundCommand('/bin/sh', ['-c', 'echo $$; exec sleep 600'], {
        signal: 'TERM', user: { uid: 64910, gid: 64911 } })
      spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'] })`
    const starter = spawn(
      process.execPath,
      ['--conditions=wrenn-source', '--import', 'tsx', '--input-type=module', '--eval', program],
      { cwd: fileURLToPath(new URL('..', import.meta.url)), stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const [line]: unknown[] = await once(starter.stdout, 'data')
    const id = await identify(Number(String(line)))
    if (id === undefined) throw new Error('It should run.')
    starter.kill('SIGKILL')
    const isGone = async () => ((await isRunning(id)) ? undefined : true)
    await waitFor(isGone, { timeoutMs: 10_000, what: 'the program to end' })
  })

  it('does not start it when its starter has died meanwhile', async () => {
    const [program, ...args] = boundCommand('/bin/echo', ['started'], { signal: 'TERM' })
    // Somebody else starts it than the one it is bound to.
    expect(await run(['sh', '-c', '"$@"; true', 'sh', program, ...args])).toMatchObject({ said: '' })
  })
})
