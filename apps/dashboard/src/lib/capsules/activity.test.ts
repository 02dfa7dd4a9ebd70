import { describe, expect, it } from 'vitest'
import { type Resting, restOf } from './activity.js'

const now = new Date('2026-01-01T12:00:00Z')
const resting: Resting = {
  state: 'running',
  timeoutMs: 600_000,
  pausesAt: undefined,
  awakeBecause: undefined,
  pauseReason: undefined,
  pausedAt: undefined,
  autoResume: true,
}

describe('restOf', () => {
  it('says when it is paused', () => {
    expect(restOf({ ...resting, pausesAt: new Date('2026-01-01T12:05:00Z') }, now)).toEqual([
      'It is paused in 5 min unless it is used.',
    ])
    expect(restOf({ ...resting, timeoutMs: 0 }, now)).toEqual(['It is never paused for being idle.'])
    expect(restOf(resting, now)).toEqual(['It is paused after 10 min without activity.'])
  })

  it('says what keeps it awake', () => {
    expect(restOf({ ...resting, awakeBecause: ['stream', 'cpu'] }, now)).toEqual([
      'It stays awake: a stream or terminal is open, its CPU is busy.',
    ])
  })

  it('says why it was paused, and how it wakes', () => {
    const paused = {
      ...resting,
      state: 'paused',
      pauseReason: 'idle',
      pausedAt: new Date('2026-01-01T11:00:00Z'),
    } as const
    expect(restOf(paused, now)).toEqual([
      'It was paused 1 h ago: nobody used it.',
      'It wakes by itself when it is used.',
    ])
    expect(restOf({ ...paused, autoResume: false }, now)[1]).toBe('It waits for a resume.')
  })

  it('says where one is that hibernates, and what a resume does', () => {
    const sentences = restOf({ ...resting, state: 'hibernated', pauseReason: 'idle' }, now)
    expect(sentences.map((sentence) => /object store|fetched to a host|wakes by itself/.exec(sentence)?.[0])).toEqual([
      'object store',
      'fetched to a host',
      'wakes by itself',
    ])
    expect(restOf({ ...resting, state: 'hibernated', autoResume: false }, now).at(-1)).toBe('It waits for a resume.')
  })

  it('says nothing of one that is neither', () => {
    expect(restOf({ ...resting, state: 'error' }, now)).toEqual([])
  })
})
