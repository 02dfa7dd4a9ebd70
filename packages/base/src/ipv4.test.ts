import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { contains, formatAddress, formatCidr, neverRangeOf, overlaps, parseAddress, parseCidr } from './ipv4.js'

const address = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const cidr = fc.tuple(address, fc.integer({ min: 0, max: 32 })).map(([base, bits]) => {
  const parsed = parseCidr(`${formatAddress(base)}/${bits}`)
  if (!parsed) throw new Error('not parsed')
  return parsed
})

describe('addresses', () => {
  it('read back as they were written', () => {
    fc.assert(
      fc.property(address, (number) => {
        expect(parseAddress(formatAddress(number))).toBe(number)
      }),
    )
    fc.assert(
      fc.property(cidr, (network) => {
        expect(parseCidr(formatCidr(network))).toEqual(network)
      }),
    )
  })

  it('refuse what is no IPv4 network', () => {
    for (const text of [
      '',
      'example.org',
      '1.2.3',
      '1.2.3.4/33',
      '1.2.3.4/',
      '::1',
      '1.2.3.4/8/8',
      '01.2.3.4',
      ' 1.2.3.4',
    ]) {
      expect([text, parseCidr(text)]).toEqual([text, undefined])
    }
    expect(parseCidr('10.1.2.3/8')).toEqual(parseCidr('10.0.0.0/8'))
  })

  it('overlap both ways, and always when one contains the other', () => {
    fc.assert(
      fc.property(cidr, cidr, (a, b) => {
        expect(overlaps(a, b)).toBe(overlaps(b, a))
        expect(overlaps(a, b)).toBe(contains(a, b) || contains(b, a))
      }),
    )
  })

  it('say which never reachable range a network lies in', () => {
    const inside = (text: string): string | undefined => {
      const parsed = parseCidr(text)
      return parsed && neverRangeOf(parsed)
    }
    expect(inside('169.254.169.254')).toBe('169.254.0.0/16')
    expect(inside('127.0.0.0/9')).toBe('127.0.0.0/8')
    expect([inside('0.0.0.0/0'), inside('10.0.0.0/8')]).toEqual([undefined, undefined])
  })
})
