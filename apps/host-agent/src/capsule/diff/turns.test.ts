import { describe, expect, it } from 'vitest'
import { DiffTurns } from './turns.js'

const never = new AbortController().signal
const of = (capsuleId: string, teamId = `team of ${capsuleId}`) => ({ capsuleId, teamId })
/** Whether a turn has come; looked at when all that could go on has gone on. */
async function isThere(turn: Promise<Disposable>): Promise<boolean> {
  let came = false
  turn.then(
    () => {
      came = true
    },
    () => {},
  )
  await new Promise((resolve) => setImmediate(resolve))
  return came
}

describe('turns at points in time', () => {
  it('are one of a capsule at a time, in the order of the calls', async () => {
    const turns = new DiffTurns({ working: 4 })
    const first = await turns.take(of('cl-1'), never)
    const [second, third] = [turns.take(of('cl-1'), never), turns.take(of('cl-1'), never)]
    expect(await isThere(turns.take(of('cl-2'), never))).toBe(true)
    expect([await isThere(second), await isThere(third)]).toEqual([false, false])
    first[Symbol.dispose]()
    first[Symbol.dispose]()
    expect([await isThere(second), await isThere(third)]).toEqual([true, false])
    ;(await second)[Symbol.dispose]()
    expect(await isThere(third)).toBe(true)
  })

  it('are a few on a host, and go to whom nothing else holds up', async () => {
    const turns = new DiffTurns({ working: 2 })
    const [one, two] = [await turns.take(of('cl-1'), never), await turns.take(of('cl-2'), never)]
    const [again, three] = [turns.take(of('cl-1'), never), turns.take(of('cl-3'), never)]
    two[Symbol.dispose]()
    expect([await isThere(again), await isThere(three)]).toEqual([false, true])
    one[Symbol.dispose]()
    expect(await isThere(again)).toBe(true)
  })

  it('are refused, with when to come again, to more than may wait', async () => {
    const turns = new DiffTurns({ working: 2, ofCapsule: 2, ofHost: 3 })
    const first = await turns.take(of('cl-1'), never)
    void turns.take(of('cl-1'), never)
    const refusal = { code: 'limit_exceeded', details: { retryAfterSec: 2 } }
    await expect(turns.take(of('cl-1'), never)).rejects.toMatchObject(refusal)
    expect(await isThere(turns.take(of('cl-2'), never))).toBe(true)
    await expect(turns.take(of('cl-3'), never)).rejects.toMatchObject(refusal)
    first[Symbol.dispose]()
    expect(await isThere(turns.take(of('cl-3'), never))).toBe(false) // waits: two others work
  })

  it('are never all of one team, in work or in line', async () => {
    const turns = new DiffTurns({ working: 3, ofCapsule: 2, ofTeam: 4, ofHost: 8 })
    const mine = ['cl-1', 'cl-2', 'cl-3', 'cl-4'].map((id) => turns.take(of(id, 'team-1'), never))
    expect(await Promise.all(mine.map(isThere))).toEqual([true, true, false, false])
    await expect(turns.take(of('cl-5', 'team-1'), never)).rejects.toMatchObject({ code: 'limit_exceeded' })
    const other = turns.take(of('cl-6', 'team-2'), never)
    expect(await isThere(other)).toBe(true)
    ;(await other)[Symbol.dispose]()
    expect(await Promise.all(mine.map(isThere))).toEqual([true, true, false, false])
    const [first] = mine
    ;(await first)?.[Symbol.dispose]()
    expect(await Promise.all(mine.map(isThere))).toEqual([true, true, true, false])
  })

  it('are given up by who leaves the line', async () => {
    const turns = new DiffTurns({ working: 1, ofCapsule: 2 })
    const first = await turns.take(of('cl-1'), never)
    const leaving = new AbortController()
    const left = turns.take(of('cl-1'), leaving.signal)
    leaving.abort(new Error('gone'))
    await expect(left).rejects.toThrow('gone')
    const next = turns.take(of('cl-1'), never)
    first[Symbol.dispose]()
    expect(await isThere(next)).toBe(true)
    await expect(turns.take(of('cl-2'), leaving.signal)).rejects.toThrow('gone')
  })
})
