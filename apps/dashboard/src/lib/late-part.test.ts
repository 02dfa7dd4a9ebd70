import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { LatePart } from './late-part.svelte.js'

// Without the compiler of Svelte, states are plain fields.
const plain = <Value>(value: Value): Value => value
beforeAll(() => {
  vi.stubGlobal('$state', Object.assign(plain, { raw: plain }))
})
afterAll(() => {
  vi.unstubAllGlobals()
})

it('comes once, and is asked for again when it did not come', async () => {
  const failures: unknown[] = []
  const load = vi.fn(async () => ({ default: 'part' })).mockRejectedValueOnce(new Error('offline'))
  const late = new LatePart(load, (error) => failures.push(error))
  await late.want()
  expect([late.part, failures]).toEqual([undefined, [new Error('offline')]])
  await late.want()
  await late.want()
  expect([late.part, failures.length, load.mock.calls.length]).toEqual(['part', 1, 2])
})
