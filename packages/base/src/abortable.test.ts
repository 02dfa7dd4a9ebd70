import { describe, expect, it } from 'vitest'
import { abortable } from './abortable.js'

const never = new Promise<never>(() => {})

describe('a task that may be left', () => {
  it('gives what it gives, and what it throws', async () => {
    const { signal } = new AbortController()
    expect(await abortable(Promise.resolve(1), signal)).toBe(1)
    await expect(abortable(Promise.reject(new Error('no')), signal)).rejects.toThrow('no')
  })

  it('is left by the signal, also by one that came before, and its error is nobody’s then', async () => {
    const left = new AbortController()
    const waiting = abortable(never, left.signal)
    left.abort(new Error('left'))
    await expect(waiting).rejects.toThrow('left')
    await expect(abortable(Promise.reject(new Error('no')), left.signal)).rejects.toThrow('left')
    await expect(abortable(Promise.resolve(1), left.signal)).rejects.toThrow('left')
  })
})
