import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { CapsuleTable, Entry } from '../table.js'
import { ActivityTracker } from './activity.js'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** A guest that has used `share` of a CPU since `bornMs`. */
function guestWith(share: () => number, foreground = 0): object {
  let cpuNs = 0
  let atMs = Date.now()
  const stats = async () => {
    cpuNs += (Date.now() - atMs) * share() * 1e6
    atMs = Date.now()
    return { cpuNs: BigInt(Math.round(cpuNs)) }
  }
  return { vm: { stats }, client: { activity: async () => ({ foreground, processes: 0, openStreams: 0 }) } }
}

function trackerOf(entry: { guest: object }): () => Promise<readonly string[]> {
  Object.assign(entry, { record: { capsuleId: 'cl-1', state: 'running', lastActiveAtMs: 0 } })
  // Only what the tracker asks for.
  const table = { find: () => entry as unknown as Entry, entries: () => [entry] } as unknown as CapsuleTable
  const tracker = new ActivityTracker(table)
  return async () => {
    const answer = tracker.read(['cl-1'])
    await vi.advanceTimersByTimeAsync(5_000)
    return (await answer)[0]?.reasons ?? ['none']
  }
}

describe('the activity of a capsule', () => {
  it('is CPU use of now, also when it was idle for hours before', async () => {
    let share = 0
    const reasons = trackerOf({ guest: guestWith(() => share) })
    expect(await reasons()).toEqual([])
    await vi.advanceTimersByTimeAsync(3_600_000)
    share = 1
    expect(await reasons()).toEqual(['cpu'])
    share = 0
    expect(await reasons()).toEqual([])
  })

  it('is that of its guest, not of the one it had before it slept', async () => {
    const entry = { guest: guestWith(() => 1) }
    const reasons = trackerOf(entry)
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(await reasons()).toEqual(['cpu'])
    entry.guest = guestWith(() => 1)
    expect(await reasons()).toEqual(['cpu'])
  })

  it('is a command that somebody waits for', async () => {
    expect(await trackerOf({ guest: guestWith(() => 0, 1) })()).toEqual(['process'])
  })
})
