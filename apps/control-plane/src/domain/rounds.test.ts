import { expect, it, vi } from 'vitest'
import { Rounds } from './rounds.js'

const NEVER_MS = 2 ** 31 - 1
const fail = (error: unknown): never => {
  throw error
}

it('begins the next round at once for who is in a hurry', async () => {
  let count = 0
  const rounds = new Rounds(
    async () => {
      count++
    },
    NEVER_MS,
    fail,
  )
  rounds.start()
  await vi.waitFor(() => expect(count).toBe(1))
  rounds.hurry()
  await vi.waitFor(() => expect(count).toBe(2))
  await rounds.stop()
  expect(count).toBe(2)
})

it('looks again after a round during which somebody was in a hurry', async () => {
  let count = 0
  const rounds: Rounds = new Rounds(
    async () => {
      count++
      if (count === 1) rounds.hurry()
    },
    NEVER_MS,
    fail,
  )
  rounds.start()
  await vi.waitFor(() => expect(count).toBe(2))
  await rounds.stop()
})
