import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Layout, layoutOf } from './layout.js'
import { identify, isRunning } from './process-id.js'
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
async function leaveRecord(children: object[]): Promise<void> {
  const dead = spawn('true')
  const id = { pid: dead.pid, startTicks: '1' }
  await once(dead, 'exit')
  await writeFile(layout.recordFile, JSON.stringify({ supervisor: id, apiUrl: URL, children }))
}

describe('DirectoryClaim', () => {
  it('is held by one at a time, and tells the second who holds it', async () => {
    const { claim } = await DirectoryClaim.take(layout, URL)
    await expect(DirectoryClaim.take(layout, URL)).rejects.toMatchObject({
      code: 'conflict',
      details: { pid: process.pid, apiUrl: URL },
    })
    expect((await findRunning(layout))?.apiUrl).toBe(URL)
    await claim[Symbol.asyncDispose]()
    expect(await findRunning(layout)).toBeUndefined()
    const again = await DirectoryClaim.take(layout, URL)
    await again.claim[Symbol.asyncDispose]()
  })

  it('takes over from a supervisor that was killed, and ends the child it left', async () => {
    const orphan = spawn('sleep', ['600'])
    const ended = once(orphan, 'exit')
    await leaveRecord([{ ...(await identify(orphan.pid ?? 0)), name: 'control-plane' }])
    const { claim, stopped } = await DirectoryClaim.take(layout, URL)
    expect(stopped).toEqual(['control-plane'])
    expect(await ended).toEqual([null, 'SIGTERM'])
    await claim[Symbol.asyncDispose]()
  })

  it('never signals a process that only has the number of an old child', async () => {
    const stranger = spawn('sleep', ['600'])
    await leaveRecord([{ pid: stranger.pid, startTicks: '1', name: 'host-agent' }])
    const { claim, stopped } = await DirectoryClaim.take(layout, URL)
    expect(stopped).toEqual([])
    const id = await identify(stranger.pid ?? 0)
    expect(id && (await isRunning(id))).toBe(true)
    stranger.kill('SIGKILL')
    await claim[Symbol.asyncDispose]()
  })

  it('has exactly one winner when several take over at once', async () => {
    await leaveRecord([])
    const tries = await Promise.allSettled(Array.from({ length: 5 }, () => DirectoryClaim.take(layout, URL)))
    const winners = tries.filter((one) => one.status === 'fulfilled')
    expect(winners).toHaveLength(1)
    await winners[0]?.value.claim[Symbol.asyncDispose]()
  })
})
