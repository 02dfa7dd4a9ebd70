import { describe, expect, it } from 'vitest'
import { SlotRange } from './address.js'
import { formatLabel, parseLabel } from './label.js'
import { resolvePolicy } from './policy.js'
import { exceptionRules, policyRules, rootRules } from './rules.js'

const closed = { internet: false, allow: [], deny: [] }

describe('resolvePolicy', () => {
  it('treats a private network as allowed only when it is named itself', () => {
    const resolved = resolvePolicy({ ...closed, allow: ['0.0.0.0/0', '10.0.0.0/7', '10.1.0.0/16', '192.168.1.1'] })
    expect(resolved).toMatchObject({ allow: ['0.0.0.0/0'], allowPrivate: ['10.1.0.0/16', '192.168.1.1'] })
  })

  it('answers names only to those who can connect to something', () => {
    expect(resolvePolicy(closed).names).toBe(false)
    expect(resolvePolicy({ ...closed, allow: ['198.51.100.1'] }).names).toBe(true)
    expect(resolvePolicy({ ...closed, internet: true }).names).toBe(true)
  })

  it('drops entries that others cover', () => {
    expect(resolvePolicy({ ...closed, deny: ['9.9.9.9', '9.9.9.0/24', '9.9.9.128/25', '8.8.8.8'] }).deny).toEqual([
      '9.9.9.0/24',
      '8.8.8.8',
    ])
  })

  it('names the entry that it refuses', () => {
    for (const entry of [
      'example.org',
      '*.example.org',
      '::/0',
      '127.0.0.1',
      '169.254.169.254',
      '224.0.0.1',
      '1.1.1.1; flush ruleset',
    ]) {
      expect(() => resolvePolicy({ ...closed, allow: [entry] })).toThrow(entry)
    }
    expect(() => resolvePolicy({ ...closed, deny: Array.from({ length: 1001 }, () => '1.1.1.1') })).toThrow(/1000/)
  })
})

describe('rules', () => {
  it('flush only what an earlier policy can have left', () => {
    const policy = resolvePolicy({ internet: true, allow: ['1.1.1.1'], deny: [] })
    expect(policyRules(policy, true)).not.toContain('flush')
    expect(policyRules(policy, false)).toContain('flush set inet wrenn deny')
    expect(policyRules(policy, true)).toContain('add element inet wrenn allow { 1.1.1.1 }')
  })

  it('change the root table only for private networks', () => {
    expect(exceptionRules('wrenn', '10.201.0.6', [], [])).toBe('')
    expect(exceptionRules('wrenn', '10.201.0.6', ['10.1.0.0/16'], ['10.2.0.0/16'])).toBe(
      'delete element inet wrenn exceptions { 10.201.0.6 . 10.1.0.0/16 }\nadd element inet wrenn exceptions { 10.201.0.6 . 10.2.0.0/16 }\n',
    )
  })

  it('of two platforms never match each other’s links', () => {
    const range = new SlotRange('10.201.0.0/16')
    expect(rootRules('wrenn', range)).toContain('"wrenn-*"')
    expect('wrennb-1'.startsWith('wrenn-')).toBe(false)
  })
})

describe('labels', () => {
  it('read back, also for directories with spaces', () => {
    for (const label of [
      { platform: '/var/lib/wrenn', owner: 'cl-1' },
      { platform: '/home/a b/wrenn', owner: undefined },
    ]) {
      expect(parseLabel(formatLabel(label))).toEqual(label)
    }
    expect(parseLabel('uplink to rack 4')).toBeUndefined()
  })
})
