import { describe, expect, it } from 'vitest'
import { capacityOf, certificateOf, joinSteps, lossPhrase, runsItself, statusTone } from './host-view.js'

const now = new Date('2030-01-10T00:00:00Z')
const inHours = (hours: number) => ({ certificateExpiresAt: new Date(now.getTime() + hours * 3600 * 1000) })

describe('a host', () => {
  it('has a certificate that ends, is late with the next one, or is over', () => {
    const told = [7 * 24, 49, 47, 1, 0, -30].map((hours) => certificateOf(inHours(hours), now))
    expect(told.map(({ text }) => text)).toEqual([
      'ends in 7 d',
      'ends in 2 d',
      'ends in 1 d',
      'ends in 1 h',
      'ended just now',
      'ended 1 d ago',
    ])
    expect(told.map(({ tone }) => tone)).toEqual([
      'text-text-3',
      'text-text-3',
      'text-amber',
      'text-amber',
      'text-red',
      'text-red',
    ])
    expect(certificateOf({ certificateExpiresAt: undefined }, now)).toEqual({ text: 'none', tone: 'text-text-4' })
  })

  it('has what it said as it joined, and nothing before', () => {
    const facts = { cpuCores: 4, memoryMib: 16_384, diskGib: 2048 }
    expect(capacityOf(facts)).toBe('4 cores, 16 GiB of memory, 2 TiB of disk')
    expect(capacityOf({ ...facts, cpuCores: 1, diskGib: undefined })).toBe('1 core, 16 GiB of memory')
    expect(capacityOf({ cpuCores: undefined, memoryMib: undefined, diskGib: undefined })).toBe('')
  })

  it('has a colour for its state, also for one of a newer platform', () => {
    expect(['online', 'revoked', 'drained'].map(statusTone)).toEqual(['text-sage', 'text-red', 'text-amber'])
  })

  it('is removed with its capsules and templates by who says how many', () => {
    const losses = [
      { capsules: 1, templates: 0 },
      { capsules: 0, templates: 2 },
      { capsules: 1204, templates: 1 },
    ]
    expect(losses.map(lossPhrase)).toEqual(['lose 1 capsule', 'lose 2 templates', 'lose 1,204 capsules and 1 template'])
  })

  it('joins by the address of the platform', () => {
    const commands = joinSteps('https://wrenn.example:8443').map(({ command }) => command)
    expect(commands).toEqual(['sudo wrenn doctor', 'sudo wrenn host join https://wrenn.example:8443', 'sudo wrenn up'])
  })
})

it('a platform without hosts runs capsules itself, or waits for one', () => {
  expect(runsItself([{ address: 'unix:/var/lib/wrenn/run/host-agent.sock', answers: false }])).toBe(true)
  expect(runsItself([{ address: 'http://127.0.0.1:9090', answers: true }])).toBe(true)
  expect(runsItself([{ address: 'nowhere', answers: false }])).toBe(false)
  expect(runsItself([])).toBe(false)
})
