import { describe, expect, it } from 'vitest'
import { beginnerOf, markOf, spanMs, stepsText, templateOf } from './build-state.js'

describe('a build', () => {
  it('has a word for how it does, also where a newer server has another one', () => {
    expect(markOf('error')).toMatchObject({ word: 'failed', isMoving: false })
    expect(markOf('building').isMoving).toBe(true)
    expect(markOf('frozen')).toMatchObject({ word: 'frozen', isMoving: false })
  })

  it('is launched by the name that stands for it', () => {
    expect(templateOf({ name: 'web', tags: [] })).toBe('web')
    expect(templateOf({ name: 'web', tags: ['v2', 'stable'] })).toBe('web:v2')
    expect(templateOf({ name: 'web', tags: ['v2', 'default'] })).toBe('web')
  })

  it('was begun by somebody, a key, or who is not there any more', () => {
    expect(beginnerOf({ by: { type: 'user', id: 'user-1', name: 'Ada' } })).toBe('Ada')
    expect(beginnerOf({ by: { type: 'key', id: 'key-1', name: 'ci' } })).toBe('key ci')
    expect(beginnerOf({ by: { type: 'user', id: 'user-1', name: '' } })).toBe('somebody who has left')
    expect(beginnerOf({ by: undefined })).toBe('the platform')
  })

  it('tells how many steps it has and how long it takes', () => {
    expect(stepsText({ steps: undefined, cachedSteps: undefined })).toBe('')
    expect(stepsText({ steps: 3, cachedSteps: undefined })).toBe('3')
    expect(stepsText({ steps: 3, cachedSteps: 0 })).toBe('3, 0 cached')
    const [createdAt, now] = [new Date(1_000), new Date(4_000)]
    expect(spanMs({ createdAt, endedAt: new Date(2_500) }, now)).toBe(1_500)
    expect(spanMs({ createdAt, endedAt: undefined }, now)).toBe(3_000)
    expect(spanMs({ createdAt: now, endedAt: undefined }, createdAt)).toBe(0)
  })
})
