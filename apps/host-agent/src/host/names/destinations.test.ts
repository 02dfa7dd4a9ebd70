import { describe, expect, it } from 'vitest'
import { type Destination, Destinations, joinLearned, nothingLearned } from './destinations.js'

const at = (address: string, port = 443): Omit<Destination, 'count'> => ({ protocol: 'tcp', address, port })
const named = (name: string, address = '9.9.9.9'): Omit<Destination, 'count'> => ({
  ...at(address),
  name,
  namedBy: 'connection',
})

describe('what was used', () => {
  it('is counted by target, the most used first, whatever addresses a name has', () => {
    const used = new Destinations()
    for (const address of ['9.9.9.9', '8.8.8.8']) used.note('one', named('a.example', address))
    used.note('one', at('9.9.9.9'))
    used.note('one', at('9.9.9.9', 22), 5)
    used.note('one', { protocol: 'udp', address: '9.9.9.9', port: 443, name: 'a.example', namedBy: 'lookup' })
    expect(used.list('one')).toEqual({
      isComplete: true,
      destinations: [
        { ...at('9.9.9.9', 22), count: 5 },
        { ...named('a.example', '8.8.8.8'), count: 2 },
        { ...at('9.9.9.9'), count: 1 },
        { protocol: 'udp', address: '9.9.9.9', port: 443, name: 'a.example', namedBy: 'lookup', count: 1 },
      ],
    })
    expect(used.list('two')).toEqual(nothingLearned)
  })

  it('moves to the name that a connection tells later', () => {
    const used = new Destinations()
    for (const _ of [1, 2]) used.note('one', at('9.9.9.9'))
    used.rename('one', at('9.9.9.9'), named('a.example'))
    const left = [
      { ...at('9.9.9.9'), count: 1 },
      { ...named('a.example'), count: 1 },
    ]
    expect(used.list('one').destinations).toEqual(left)
    used.rename('one', at('9.9.9.9'), named('a.example'))
    expect(used.list('one').destinations).toEqual([{ ...named('a.example'), count: 2 }])
  })

  it('is kept in bounds, and says that there was more', () => {
    const used = new Destinations({ perSource: 3, all: 5 })
    for (let port = 1; port <= 3; port += 1) used.note('one', at('9.9.9.9', port))
    used.note('one', at('9.9.9.9', 1))
    expect(used.list('one').isComplete).toBe(true)
    used.note('one', at('9.9.9.9', 4))
    expect(used.list('one').destinations).toHaveLength(3)
    expect(used.list('one').isComplete).toBe(false)
    for (let port = 1; port <= 3; port += 1) used.note('two', at('9.9.9.9', port))
    expect(used.list('two')).toMatchObject({ destinations: [{ port: 1 }, { port: 2 }], isComplete: false })
    used.forget('one')
    for (let port = 1; port <= 3; port += 1) used.note('three', at('9.9.9.9', port))
    expect(used.list('three').isComplete).toBe(true)
  })

  it('is one list of several', () => {
    const [one, two] = [new Destinations(), new Destinations({ perSource: 1, all: 1 })]
    one.note('', named('a.example'))
    for (const name of ['a.example', 'b.example']) two.note('', named(name))
    expect(joinLearned(one.list(''), two.list(''))).toEqual({
      destinations: [{ ...named('a.example'), count: 2 }],
      isComplete: false,
    })
  })
})
