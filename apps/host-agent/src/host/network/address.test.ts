import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { contains, formatAddress, formatCidr, overlaps, parseAddress, parseCidr, SlotRange } from './address.js'

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
})

describe('SlotRange', () => {
  it('gives every slot a /30 of its own inside the range, apart from the forwarder’s', () => {
    const range = new SlotRange('10.201.0.0/20')
    const used = new Set([range.dns])
    for (let index = 1; index <= range.lastIndex; index += 1) {
      const { host, guest } = range.addresses(index)
      for (const text of [host, guest]) {
        expect(used.has(text)).toBe(false)
        expect(contains(range.cidr, parseCidr(text) ?? { base: 0, bits: 32 })).toBe(true)
        used.add(text)
      }
    }
    expect([range.dns, range.lastIndex]).toEqual(['10.201.0.1', 1023])
    expect(range.addresses(1)).toEqual({ host: '10.201.0.5', guest: '10.201.0.6' })
  })

  it('names its option when it is no usable range', () => {
    for (const text of ['10.0.0.0/30', '10.0.0.0', 'x', '0.0.0.0/0']) {
      expect(() => new SlotRange(text)).toThrow(/WRENN_NETWORK_CIDR/)
    }
  })
})
