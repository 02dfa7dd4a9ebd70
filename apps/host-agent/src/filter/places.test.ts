import { describe, expect, it } from 'vitest'
import { Places } from './places.js'

class Guest {
  constructor(
    private readonly places: Places<Guest>,
    readonly source: string,
    readonly number: number,
  ) {}

  breakOff(): void {
    this.places.leave(this.source, this)
  }
}

function enter(places: Places<Guest>, source: string, count: number): number {
  let entered = 0
  for (let number = 0; number < count; number += 1) {
    if (!places.makeRoom(source)) continue
    places.take(source, new Guest(places, source, number))
    entered += 1
  }
  return entered
}

describe('places', () => {
  it('are no more for one source than it may have', () => {
    const places = new Places<Guest>({ all: 100, perSource: 10 })
    expect([enter(places, 'a', 50), enter(places, 'b', 3), places.taken]).toEqual([10, 3, 13])
  })

  it('are given up by who has most, its oldest first, to who has fewer', () => {
    const places = new Places<Guest>({ all: 20, perSource: 20 })
    expect(enter(places, 'greedy', 30)).toBe(20)
    expect(enter(places, 'late', 5)).toBe(5)
    expect(places.taken).toBe(20)
    expect(places.of('late')).toHaveLength(5)
    expect(places.of('greedy').map(({ number }) => number)).toEqual([...Array(15).keys()].map((n) => n + 5))
  })

  it('go to and fro between none: who has as many gets no more', () => {
    const places = new Places<Guest>({ all: 20, perSource: 20 })
    enter(places, 'a', 20)
    enter(places, 'b', 100)
    expect([places.of('a').length, places.of('b').length]).toEqual([10, 10])
    expect(places.makeRoom('a')).toBe(false)
  })
})
