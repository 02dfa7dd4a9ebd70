import { describe, expect, it } from 'vitest'
import { limitFields, limitsText, noLimits, partOf, quotaFields, readLimits, typedLimits } from './limits.js'

describe('limits', () => {
  it('are typed as people say them, and read back', () => {
    const limits = { ...noLimits, runningCapsules: 3, poolBytes: 20 * 2 ** 30, vcpus: 0 }
    const typed = typedLimits(limits)
    expect(typed).toMatchObject({ runningCapsules: '3', poolBytes: '20', vcpus: '0', memoryMib: '' })
    const nulls = Object.fromEntries(limitFields.map(({ key }) => [key, null]))
    expect(readLimits(typed)).toEqual({ ...nulls, runningCapsules: 3, poolBytes: 20 * 2 ** 30, vcpus: 0 })
    expect(readLimits({ ...typed, poolBytes: '0.5' })).toMatchObject({ poolBytes: 2 ** 29 })
  })

  it('are told where they are set, and none is none', () => {
    expect(limitsText(noLimits)).toBe('')
    expect(limitsText({ ...noLimits, vcpus: 0, memoryMib: 8192 })).toBe('vCPUs in use: no limit · Memory in use: 8 GiB')
  })
})

describe('what a team uses', () => {
  it('is shown for every limit that there is, in words of people', () => {
    const keys = quotaFields.map(({ key }) => key)
    for (const { key } of limitFields) expect(keys).toContain(key)
    const shown = quotaFields.map(({ key, show }) => [key, show(2048)])
    expect(shown).toContainEqual(['memoryMib', '2 GiB'])
    expect(shown).toContainEqual(['poolBytes', '2 KiB'])
    expect(shown).toContainEqual(['apiCallsPerMin', '2,048'])
  })

  it('is a part of its limit, and of no limit none', () => {
    expect(partOf({ used: 3, limit: 4 })).toBe(0.75)
    expect(partOf({ used: 5, limit: 4 })).toBe(1.25)
    expect(partOf({ used: 0, limit: 0 })).toBe(1)
    expect(partOf({ used: 3, limit: undefined })).toBeUndefined()
  })
})
