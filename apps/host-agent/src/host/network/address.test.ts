import { contains, parseCidr } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { SlotRange } from './address.js'

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
