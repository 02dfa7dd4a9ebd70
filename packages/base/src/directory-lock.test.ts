import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { DirectoryLock } from './directory-lock.js'

let dir = ''
const children: ChildProcess[] = []

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-lock-test-'))
})

afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  await rm(dir, { recursive: true, force: true })
})

/** Another process that has the lock. */
async function startHolder(): Promise<ChildProcess> {
  const program = `
    import { DirectoryLock } from '@wrenn/base'
    await DirectoryLock.take('test', ${JSON.stringify(dir)})
    process.stdout.write('locked')
    setInterval(() => {}, 1000)`
  const child = spawn(
    process.execPath,
    ['--conditions=wrenn-source', '--import', 'tsx', '--input-type=module', '--eval', program],
    { cwd: fileURLToPath(new URL('..', import.meta.url)), stdio: ['ignore', 'pipe', 'inherit'] },
  )
  children.push(child)
  await once(child.stdout, 'data')
  return child
}

describe('DirectoryLock', () => {
  it('is refused while another process lives that has it, which is named', async () => {
    const holder = await startHolder()
    await expect(DirectoryLock.take('test', dir)).rejects.toMatchObject({
      code: 'conflict',
      details: { pid: holder.pid },
    })
    await using _other = await DirectoryLock.take('other', dir)
  })

  it('is had by the next at once when its holder is killed, without waiting for it', async () => {
    const holder = await startHolder()
    holder.kill('SIGKILL')
    await using _lock = await DirectoryLock.take('test', dir)
  })

  it('waits for a holder that says nothing, and has the lock when that one dies', async () => {
    const holder = await startHolder()
    holder.kill('SIGSTOP')
    const lock = DirectoryLock.take('test', dir)
    holder.kill('SIGKILL')
    await using _lock = await lock
  })

  it('has exactly one winner of many, and can be had again after it was given back', async () => {
    const tries = await Promise.allSettled(Array.from({ length: 8 }, () => DirectoryLock.take('test', dir)))
    const winners = tries.filter((one) => one.status === 'fulfilled')
    expect(winners).toHaveLength(1)
    await winners[0]?.value[Symbol.asyncDispose]()
    await using _lock = await DirectoryLock.take('test', dir)
  })
})
