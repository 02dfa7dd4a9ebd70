import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { isErrno } from './errors.js'
import { endHolders, inheritedLifeline, lifelinePath } from './lifeline.js'
import { identify, isRunning } from './process-id.js'

let dir = ''
let path = ''
/** Each with a process group of its own, which ends with the test. */
const children: ChildProcess[] = []

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-lifeline-test-'))
  path = lifelinePath(join(dir, 'service'))
})

afterEach(async () => {
  for (const { pid = 0 } of children.splice(0)) endGroup(pid)
  await rm(dir, { recursive: true, force: true })
})

function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if (!isErrno(error, 'ESRCH')) throw error // all of it has ended
  }
}

/** Starts a shell that has the lifeline and says when it is at work. */
async function startHolder(script: string): Promise<ChildProcess> {
  const lifeline = await open(path, 'a')
  const child = spawn('sh', ['-c', script], { stdio: ['ignore', 'pipe', 'inherit', lifeline.fd], detached: true })
  children.push(child)
  await lifeline.close()
  if (child.stdout) await once(child.stdout, 'data')
  return child
}

async function pidsEnded(ladder?: Parameters<typeof endHolders>[1]): Promise<number[]> {
  return (await endHolders(path, ladder)).map(({ pid }) => pid)
}

describe('endHolders', () => {
  it('finds nobody where there is no lifeline, and where only we have it', async () => {
    expect(await pidsEnded()).toEqual([])
    const own = await open(path, 'a')
    expect(await pidsEnded()).toEqual([])
    await own.close()
  })

  it('ends the process and what it has started, and nobody who let go of the file', async () => {
    const outliving = spawn('sleep', ['600'], { detached: true })
    children.push(outliving)
    const holder = await startHolder('sleep 600 & sleep 600 3>&- & echo $!; wait')
    const ended = once(holder, 'exit')
    expect(await pidsEnded()).toHaveLength(2)
    expect(await ended).toEqual([null, 'SIGTERM'])
    expect(await identify(outliving.pid ?? 0)).toBeDefined()
  })

  it('insists with one that does not listen', async () => {
    const holder = await startHolder('trap "" TERM; echo; while :; do sleep 0.05; done')
    const ended = once(holder, 'exit')
    const ladder = [
      { signal: 'SIGTERM', graceMs: 200 },
      { signal: 'SIGKILL', graceMs: 10_000 },
    ] as const
    expect(await pidsEnded(ladder)).toContain(holder.pid)
    expect(await ended).toEqual([null, 'SIGKILL'])
  })

  it('finds it under a path that leads elsewhere, and when the file has been removed', async () => {
    const holder = await startHolder('echo; exec sleep 600')
    await rm(path)
    const id = await identify(holder.pid ?? 0)
    expect(await pidsEnded()).toEqual([holder.pid])
    expect(id && (await isRunning(id))).toBe(false)
  })

  it('knows a process whose first thread has ended by the threads that have not', async () => {
    const script =
      'import ctypes,threading,time; threading.Thread(target=time.sleep,args=(600,)).start(); print(flush=True); ctypes.CDLL(None).syscall(60,0)'
    const holder = await startHolder(`exec python3 -c '${script}'`)
    expect(await pidsEnded()).toEqual([holder.pid])
  })
})

describe('inheritedLifeline', () => {
  it('is nothing in a process that was not given one', () => {
    expect(inheritedLifeline()).toEqual([])
  })
})
