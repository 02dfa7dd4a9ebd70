import { describe, expect, it } from 'vitest'
import { newTag, orderedTags } from './tags.js'

describe('names of terminals', () => {
  it('take the first number that is free', () => {
    expect([newTag([]), newTag(['shell-1', 'shell-3']), newTag(['shell-1', 'pty-ab'])]).toEqual([
      'shell-1',
      'shell-2',
      'shell-2',
    ])
  })

  it('are in the order of their numbers, strangers last', () => {
    expect(orderedTags(['pty-b', 'shell-10', 'shell-2', 'pty-a'])).toEqual(['shell-2', 'shell-10', 'pty-a', 'pty-b'])
  })
})
