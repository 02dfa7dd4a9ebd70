import { describe, expect, it } from 'vitest'
import type { HostLoad } from '../../store/placement.js'
import { byChoice, byRoom, hasRoom, type Room, roomOf } from './load.js'

const share = { vcpusPerCpu: 4, memoryPercent: 90 }
const empty: HostLoad = {
  ...{
    id: 'a',
    answers: true,
    isCordoned: false,
    tags: ['eu'],
    isShort: false,
    cpus: 2,
    memoryMib: 10_000,
    poolFree: 1,
  },
  ...{ usedVcpus: 0, usedMib: 0, pausedMib: 0 },
}

describe('the room of a host', () => {
  it('is what it has, as far as that is promised, without what is', () => {
    const room = roomOf({ ...empty, usedVcpus: 3, usedMib: 4_000 }, share)
    expect([room.freeVcpus, room.freeMib]).toEqual([5, 5_000])
    expect(hasRoom(room, { vcpus: 5, memoryMib: 5_000 })).toBe(true)
    expect(hasRoom(room, { vcpus: 6, memoryMib: 1 })).toBe(false)
    expect(hasRoom(room, { vcpus: 1, memoryMib: 5_001 })).toBe(false)
  })

  it('is measured by what it has least of', () => {
    expect(roomOf({ ...empty, usedVcpus: 6 }, share)).toMatchObject({ score: 0.25, scarcest: 'CPUs' })
    expect(roomOf({ ...empty, usedMib: 6_750 }, share)).toMatchObject({ score: 0.25, scarcest: 'memory' })
    expect(roomOf({ ...empty, poolFree: 0.25 }, share)).toMatchObject({ score: 0.25, scarcest: 'pool' })
    // What is paused is there, and half of it is taken to wake.
    expect(roomOf({ ...empty, pausedMib: 9_000 }, share)).toMatchObject({ score: 0.5, freeMib: 9_000 })
  })

  it('is nothing while nobody knows what the host has, and where it gets no capsules', () => {
    expect(hasRoom(roomOf({ ...empty, cpus: null, memoryMib: null }, share), { vcpus: 1, memoryMib: 1 })).toBe(false)
    expect(roomOf({ ...empty, isCordoned: true }, share).closed).toBe('is cordoned')
    expect(roomOf({ ...empty, isShort: true }, share).closed).toMatch(/short/)
    expect(roomOf({ ...empty, answers: false, isCordoned: true }, share).closed).toBe('does not answer')
    expect(roomOf(empty, share)).not.toHaveProperty('closed')
    expect(roomOf(empty, share, ['eu'])).not.toHaveProperty('closed')
    const asked = ['gpu', 'eu', 'big']
    expect(roomOf({ ...empty, isCordoned: true }, share, asked).closed).toBe('lacks the tags gpu and big')
    expect(roomOf({ ...empty, answers: false }, share, asked)).toMatchObject({
      closed: 'does not answer',
      lacks: ['gpu', 'big'],
    })
  })

  it('orders hosts: of equals in what is scarcest, by all together', () => {
    const rooms = [
      roomOf({ ...empty, id: 'full', usedVcpus: 7 }, share),
      roomOf({ ...empty, id: 'half', poolFree: 0.5, usedMib: 3_000 }, share),
      roomOf({ ...empty, id: 'free', poolFree: 0.5 }, share),
    ]
    const ordered = (by: (a: Room, b: Room) => number, of = rooms) => [...of].sort(by).map(({ id }) => id)
    expect(ordered(byRoom)).toEqual(['free', 'half', 'full'])
    expect(ordered(byChoice('spread'))).toEqual(['free', 'half', 'full'])
    expect(ordered(byChoice('pack'))).toEqual(['full', 'half', 'free'])
    const asleep = roomOf({ ...empty, id: 'asleep', pausedMib: 20_000 }, share)
    expect(ordered(byChoice('pack'), [asleep, ...rooms])).toEqual(['full', 'half', 'free', 'asleep'])
  })
})
