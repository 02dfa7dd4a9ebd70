import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identify, isRunning } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Layout, layoutOf } from './layout.js'
import { DirectoryClaim, findRunning } from './record.js'

const URL = 'http://127.0.0.1:8000'
let layout: Layout

beforeEach(async () => {
  layout = layoutOf(await mkdtemp(join(tmpdir(), 'wrenn-cli-test-')))
  await mkdir(layout.runDir)
})

afterEach(async () => {
  await rm(layout.dir, { recursive: true, force: true })
})

/** A record as a supervisor leaves it that was killed with a child still running. */
async function leaveRecord(children: object[], more: object = {}): Promise<void> {
  const dead = spawn('true')
  const id = { pid: dead.pid, startTicks: '1' }
  await once(dead, 'exit')
  await writeFile(layout.recordFile, JSON.stringify({ supervisor: id, apiUrl: URL, children, ...more }))
}

/** A process with a lifeline, as a service's that its supervisor had no time to write down. */
async function leaveHolder(script: string): Promise<ChildProcess> {
  const lifeline = await open(layout.lifelines['host-agent'], 'a')
  const child = spawn('sh', ['-c', `${script}\necho up; while :; do sleep 0.1; done`], {
    stdio: ['ignore', 'pipe', 'inherit', lifeline.fd],
  })
  await lifeline.close()
  if (child.stdout) await once(child.stdout, 'data')
  return child
}

describe('DirectoryClaim', () => {
  it('is held by one at a time, and tells the second who holds it', async () => {
    const claim = await DirectoryClaim.take(layout, URL)
    await expect(DirectoryClaim.take(layout, URL)).rejects.toMatchObject({
      code: 'conflict',
      details: { pid: process.pid, apiUrl: URL },
    })
    expect((await findRunning(layout))?.apiUrl).toBe(URL)
    await claim[Symbol.asyncDispose]()
    expect(await findRunning(layout)).toBeUndefined()
    const again = await DirectoryClaim.take(layout, URL)
    await again[Symbol.asyncDispose]()
  })

  it('takes over from a supervisor that was killed, and ends the child it left', async () => {
    const orphan = spawn('sleep', ['600'])
    const ended = once(orphan, 'exit')
    await leaveRecord([{ ...(await identify(orphan.pid ?? 0)), name: 'control-plane' }])
    const claim = await DirectoryClaim.take(layout, URL)
    expect(claim.stopped).toEqual(['control-plane'])
    expect(await ended).toEqual([null, 'SIGTERM'])
    await claim[Symbol.asyncDispose]()
  })

  it('never signals a process that only has the number of an old child', async () => {
    const stranger = spawn('sleep', ['600'])
    await leaveRecord([{ pid: stranger.pid, startTicks: '1', name: 'host-agent' }])
    const claim = await DirectoryClaim.take(layout, URL)
    expect(claim.stopped).toEqual([])
    const id = await identify(stranger.pid ?? 0)
    expect(id && (await isRunning(id))).toBe(true)
    stranger.kill('SIGKILL')
    await claim[Symbol.asyncDispose]()
  })

  it('ends what holds a lifeline, recorded or not, with the tools it has started', async () => {
    const holder = await leaveHolder('sleep 600 &')
    const ended = once(holder, 'exit')
    const claim = await DirectoryClaim.take(layout, URL)
    expect(claim.stopped).toEqual(['host-agent'])
    expect(await ended).toEqual([null, 'SIGTERM'])
    await claim[Symbol.asyncDispose]()
  })

  it('takes a record for stale whose pid belongs to another process by now', async () => {
    const now = await identify(process.pid)
    await leaveRecord([], { supervisor: { pid: process.pid, startTicks: '1' } })
    expect(await findRunning(layout)).toBeUndefined()
    await leaveRecord([], { supervisor: now })
    expect(await findRunning(layout)).toBeDefined()
  })

  it('takes a record from before a reboot for stale, even when pid and start time are the same', async () => {
    const supervisor = await identify(process.pid)
    await leaveRecord([], { supervisor, bootId: 'another boot' })
    expect(await findRunning(layout)).toBeUndefined()
  })

  it('starts over a record that cannot be read', async () => {
    for (const text of ['', '{"supervisor":', '[]']) {
      await writeFile(layout.recordFile, text)
      expect(await findRunning(layout)).toBeUndefined()
      const claim = await DirectoryClaim.take(layout, URL)
      await claim[Symbol.asyncDispose]()
    }
  })

  it('has exactly one winner when several take over at once', async () => {
    await leaveRecord([])
    const tries = await Promise.allSettled(Array.from({ length: 5 }, () => DirectoryClaim.take(layout, URL)))
    const winners = tries.filter((one) => one.status === 'fulfilled')
    expect(winners).toHaveLength(1)
    await winners[0]?.value[Symbol.asyncDispose]()
  })
})
