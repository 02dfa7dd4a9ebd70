import { parseAddress } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { type EgressPolicy, resolvePolicy } from '../network/policy.js'
import { NamesPolicy } from './names-policy.js'

const at = (text: string): number => parseAddress(text) ?? Number.NaN
const policyOf = (policy: Partial<EgressPolicy>): NamesPolicy =>
  new NamesPolicy(resolvePolicy({ internet: true, allow: [], deny: [], ...policy }))

describe('a policy asked by name', () => {
  it('lets allow beat deny, and the entry that denies be known', () => {
    const policy = policyOf({ allow: ['good.bad.example'], deny: ['*.bad.example', 'bad.example'] })
    expect(policy.judge('good.bad.example')).toEqual({ verdict: 'allowed' })
    expect(policy.judge('www.bad.example')).toEqual({ verdict: 'denied', rule: '*.bad.example' })
    expect(policy.judge('bad.example')).toEqual({ verdict: 'denied', rule: 'bad.example' })
    expect(policy.judge('other.example')).toEqual({ verdict: 'open' })
  })

  it.each([
    ['an allowed name at a public address', { internet: false, allow: ['a.example'] }, 'a.example', '9.9.9.9', true],
    [
      'an allowed name at a denied address',
      { allow: ['a.example'], deny: ['9.9.9.0/24'] },
      'a.example',
      '9.9.9.9',
      true,
    ],
    ['an allowed name at a private address', { allow: ['a.example'] }, 'a.example', '10.0.0.1', false],
    [
      'an allowed name at a private address that is allowed',
      { allow: ['a.example', '10.0.0.0/24'] },
      'a.example',
      '10.0.0.1',
      false,
    ],
    ['an allowed name at the metadata service', { allow: ['a.example'] }, 'a.example', '169.254.169.254', false],
    ['a denied name at an allowed address', { allow: ['9.9.9.9'], deny: ['a.example'] }, 'a.example', '9.9.9.9', false],
    ['any other name', { deny: ['a.example'] }, 'b.example', '9.9.9.9', true],
    ['any other name at a denied address', { deny: ['a.example', '9.9.9.9'] }, 'b.example', '9.9.9.9', false],
    ['any other name without internet', { internet: false, allow: ['a.example'] }, 'b.example', '9.9.9.9', false],
    [
      'any other name at an allowed address',
      { internet: false, allow: ['a.example', '9.9.9.9'] },
      'b.example',
      '9.9.9.9',
      true,
    ],
  ])('permits or not: %s', (_what, policy, name, address, permitted) => {
    expect(policyOf(policy).permits(name, at(address))).toBe(permitted)
  })

  it.each([
    ['without internet only what is allowed', { internet: false, allow: ['a.example', '9.9.9.9'] }, ['a.example']],
    ['with internet all but what is denied', { deny: ['b.example'] }, ['a.example', 'c.example']],
    [
      'without names in allow what addresses may be of use for',
      { internet: false, allow: ['9.9.9.9'], deny: ['b.example'] },
      ['a.example', 'c.example'],
    ],
  ])('resolves %s', (_what, policy, resolved) => {
    expect(['a.example', 'b.example', 'c.example'].filter((name) => policyOf(policy).resolves(name))).toEqual(resolved)
  })
})
