import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { isErrno } from './errors.js'
import { identify, isDying, isRunning, type ProcessId, readProcessStat, signalProcess } from './process-id.js'
import { waitFor } from './wait.js'

/** Each with a process group of its own, which ends with the test. */
const children: ChildProcess[] = []
const soon = { timeoutMs: 10_000, what: 'the process' }

afterEach(() => {
  for (const { pid = 0 } of children.splice(0)) endGroup(pid)
})

function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error // all of it has ended
  }
}

/** Starts a program whose first words are a pid. */
async function start(command: string, args: readonly string[]): Promise<number> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], detached: true })
  children.push(child)
  const [line]: unknown[] = await once(child.stdout, 'data')
  return Number(String(line).split('\n')[0])
}

async function known(pid: number): Promise<ProcessId> {
  const id = await identify(pid)
  if (id === undefined) throw new Error(`The process ${pid} should run.`)
  return id
}

/** A process that was killed and whose parent never asks how it ended. */
async function leaveZombie(): Promise<ProcessId> {
  const pid = await start('sh', ['-c', 'sleep 600 & echo $!; exec sleep 600'])
  const id = await known(pid)
  await signalProcess(id, 'SIGKILL')
  const isZombie = () => (readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ') ? true : undefined)
  await waitFor(isZombie, soon)
  return id
}

const withoutFirstThread = `
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print(os.getpid(), flush=True)
ctypes.CDLL(None).syscall(60, 0)`

describe('a process', () => {
  it('runs as long as it has its pid and start time', async () => {
    const id = await known(process.pid)
    expect(await isRunning(id)).toBe(true)
    expect(await isDying(id)).toBe(false)
    expect(await isRunning({ ...id, startTicks: '1' })).toBe(false)
  })

  it('has ended when it is a zombie, though a signal still finds it', async () => {
    const id = await leaveZombie()
    expect(process.kill(id.pid, 0)).toBe(true)
    expect(await isRunning(id)).toBe(false)
    expect(await identify(id.pid)).toBeUndefined()
    expect(await isDying(id)).toBe(false)
    expect(await signalProcess(id, 'SIGTERM')).toBe(false)
  })

  it('has not ended while a thread of it has its files', async () => {
    const id = await known(await start('python3', ['-c', withoutFirstThread]))
    await waitFor(async () => ((await readProcessStat(id.pid))?.field(3) === 'Z' ? true : undefined), soon)
    expect(await isRunning(id)).toBe(true)
    expect(await isDying(id)).toBe(true)
    expect(await signalProcess(id, 'SIGKILL')).toBe(true)
    await waitFor(async () => ((await isRunning(id)) ? undefined : true), soon)
  })

  it('is never signalled under a pid that it no longer has', async () => {
    const pid = await start('sh', ['-c', 'echo $$; exec sleep 600'])
    expect(await signalProcess({ pid, startTicks: '1' }, 'SIGKILL')).toBe(false)
    expect(await identify(pid)).toBeDefined()
  })
})
