import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identify, silentLogger } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sweepVms } from './sweep.js'

let dir = ''
/** Each with a process group of its own, which ends with the test. */
const children: ChildProcess[] = []

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-sweep-test-'))
  for (const name of ['vm/one', 'vm/two', 'files/one', 'files/two']) await mkdir(join(dir, name), { recursive: true })
})

afterEach(async () => {
  for (const child of children.splice(0)) process.kill(-(child.pid ?? 0), 'SIGKILL')
  await rm(dir, { recursive: true, force: true })
})

/** Starts a program under any name and does not ask how it ends. What the program is told is not in its own command line: it is no engine. */
const CARELESS = `
import json, os, sys, time
print(os.spawnvp(os.P_NOWAIT, 'sh', json.loads(sys.stdin.readline())), flush=True)
time.sleep(600)`

async function startEngine(argv: readonly string[]): Promise<number> {
  const child = spawn('python3', ['-c', CARELESS], { stdio: ['pipe', 'pipe', 'inherit'], detached: true })
  children.push(child)
  child.stdin.write(`${JSON.stringify(argv)}\n`)
  const [line]: unknown[] = await once(child.stdout, 'data')
  return Number(String(line))
}

function sweep(keep: ReadonlyMap<string, number | undefined>): Promise<void> {
  return sweepVms({ runDir: join(dir, 'vm'), filesDir: join(dir, 'files'), keep, logger: silentLogger })
}

describe('sweepVms', () => {
  it('ends an engine that no record owns, whatever its program, and keeps the one that a record knows', async () => {
    const script = 'while :; do sleep 0.1; done'
    const stray = await startEngine(['my-own-qemu', '-c', script, '-name', 'guest=one', join(dir, 'vm/one/monitor')])
    const known = await startEngine([
      'sh',
      '-c',
      script,
      'qemu-system-x86_64',
      '-name',
      'guest=two',
      join(dir, 'vm/two/monitor'),
    ])
    await sweep(new Map([['two', known]]))
    expect(process.kill(stray, 0)).toBe(true) // a zombie
    expect(await identify(stray)).toBeUndefined()
    expect(await identify(known)).toBeDefined()
    expect([await readdir(join(dir, 'vm')), await readdir(join(dir, 'files'))]).toEqual([['two'], ['two']])
  })
})
