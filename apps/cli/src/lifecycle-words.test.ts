import type { CapsuleInfo, CheckpointInfo } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { idleWords, savedWords, stateWords, treeOf, wakeWords } from './lifecycle-words.js'

const now = new Date('2026-01-02T03:04:05Z')
const after = (seconds: number): Date => new Date(now.getTime() + seconds * 1000)

function info(more: Partial<CapsuleInfo>): CapsuleInfo {
  return { id: 'cl-1', state: 'running', timeoutMs: 60_000, autoResume: true, ...more } as CapsuleInfo // what words need
}

describe('the words for a capsule', () => {
  it('say when and why it was paused', () => {
    const paused = info({ state: 'paused', pausedAt: after(-180), pauseReason: 'idle' })
    expect(stateWords(paused, now)).toBe('paused 3 min ago because it was idle')
    expect(stateWords(info({ state: 'paused' }), now)).toBe('paused')
    expect(stateWords(info({}), now)).toBe('running')
  })

  it('say when it will be paused, or what keeps it awake', () => {
    expect(idleWords(info({ pausesAt: after(40) }), now)).toBe('will pause in 40 s unless it is used')
    expect(idleWords(info({ pausesAt: after(-1) }), now)).toBe('will pause now')
    expect(idleWords(info({ pausesAt: after(-1), awakeBecause: ['process', 'cpu'] }), now)).toBe(
      'kept awake by a running process, its CPU use',
    )
    expect(idleWords(info({ timeoutMs: 0 }), now)).toBe('never pauses by itself')
    expect(idleWords(info({ state: 'paused', pausesAt: after(5) }), now)).toBeUndefined()
  })

  it('say what wakes it', () => {
    expect(wakeWords(info({ state: 'paused' }))).toBe('when it is used')
    expect(wakeWords(info({ state: 'paused', autoResume: false }))).toContain('wrenn capsule resume cl-1')
    expect(wakeWords(info({}))).toBeUndefined()
  })

  it('say whether its saved state survives a power loss', () => {
    expect(savedWords({ durable: true, durableAt: now })).toBe('durable since 2026-01-02T03:04:05.000Z')
    expect(savedWords({ durable: false, durableAt: undefined })).toContain('not durable yet')
    expect(savedWords({ durable: undefined, durableAt: undefined })).toBeUndefined()
  })
})

describe('the tree of checkpoints', () => {
  const checkpoint = (id: string, parentId: string | undefined, second: number): CheckpointInfo => ({
    id,
    parentId,
    name: id,
    capsuleId: 'cl-1',
    current: false,
    createdAt: after(second),
    sizeBytes: 0,
    durable: true,
    durableAt: undefined,
    pauseWindowMs: undefined,
  })

  it('has children below their parents, oldest first, whatever the order they come in', () => {
    const found = [
      checkpoint('d', 'b', 4),
      checkpoint('c', 'a', 3),
      checkpoint('b', 'a', 2),
      checkpoint('a', undefined, 1),
      checkpoint('e', undefined, 5),
    ]
    expect(treeOf(found).map((line) => line.branch + line.checkpoint.name)).toEqual(['a', '├ b', '│ └ d', '└ c', 'e'])
  })

  it('starts anew at one whose parent was deleted', () => {
    const lines = treeOf([checkpoint('c', 'gone', 1), checkpoint('d', 'c', 2)])
    expect(lines.map((line) => line.branch + line.checkpoint.name)).toEqual(['c', '└ d'])
  })

  it('has every checkpoint once', () => {
    const chain = Array.from({ length: 50 }, (_, at) => checkpoint(`c${at}`, at ? `c${at - 1}` : undefined, at))
    expect(new Set(treeOf(chain).map((line) => line.checkpoint.id)).size).toBe(50)
  })
})
