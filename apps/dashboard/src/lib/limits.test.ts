import { describe, expect, it } from 'vitest'
import { limitFields, limitsText, noLimits, readLimits, typedLimits } from './limits.js'

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
