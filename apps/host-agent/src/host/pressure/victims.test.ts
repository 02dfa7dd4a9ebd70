import { describe, expect, it } from 'vitest'
import { chooseVictims, type PressureCapsule } from './victims.js'

const MIB = 2 ** 20

function capsule(id: string, overrides: Partial<PressureCapsule> = {}): PressureCapsule {
  return { id, idleMs: 0, reasons: ['process'], memoryBytes: 256 * MIB, grownBytesPerSec: 0, ...overrides }
}
const memory = (missingMib: number) => ({ kind: 'memory', missingBytes: missingMib * MIB }) as const

describe('the choice of what to pause', () => {
  it('takes the longest idle first and no more than needed', () => {
    const capsules = [
      capsule('busy', { memoryBytes: 4096 * MIB, grownBytesPerSec: 100 * MIB }),
      capsule('young', { reasons: [], idleMs: 1_000 }),
      capsule('old', { reasons: [], idleMs: 60_000 }),
    ]
    expect(chooseVictims(capsules, memory(1))).toEqual(['old'])
    expect(chooseVictims(capsules, memory(500))).toEqual(['old', 'young'])
  })

  it('takes the fastest growing of the busy, then the largest, and those with an operation last', () => {
    const capsules = [
      capsule('operation', { reasons: ['operation'], grownBytesPerSec: 900 * MIB }),
      capsule('small'),
      capsule('large', { memoryBytes: 512 * MIB }),
      capsule('growing', { grownBytesPerSec: 5 * MIB }),
    ]
    expect(chooseVictims(capsules, memory(10_000))).toEqual(['growing', 'large', 'small', 'operation'])
  })

  it('keeps a higher priority longer among equals', () => {
    const capsules = [
      capsule('dear', { reasons: [], idleMs: 9_000, priority: 5 }),
      capsule('plain', { reasons: [], idleMs: 10 }),
    ]
    expect(chooseVictims(capsules, memory(1))).toEqual(['plain'])
  })

  it('lets those go again that a larger one made needless', () => {
    const capsules = [
      capsule('idle', { reasons: [], memoryBytes: 10 * MIB }),
      capsule('busy', { memoryBytes: 4096 * MIB }),
    ]
    expect(chooseVictims(capsules, memory(100))).toEqual(['busy'])
  })

  it('pauses for the pool only what grows', () => {
    const capsules = [
      capsule('idle', { reasons: [], idleMs: 60_000 }),
      capsule('writer', { grownBytesPerSec: 50 * MIB }),
      capsule('slow', { grownBytesPerSec: MIB }),
    ]
    expect(chooseVictims(capsules, { kind: 'pool', missingBytes: 1024 * MIB })).toEqual(['writer'])
    expect(chooseVictims([capsule('idle')], { kind: 'pool', missingBytes: 1 })).toEqual([])
  })

  it('pauses nobody when nothing is missing', () => {
    expect(chooseVictims([capsule('a', { reasons: [] })], memory(0))).toEqual([])
  })
})
