import { describe, expect, it } from 'vitest'
import { placeOf } from './throttle.js'

describe('a place', () => {
  it('is an address of IPv4, or a network of IPv6', () => {
    expect(placeOf('192.0.2.7')).toBe('192.0.2.7')
    expect(placeOf('::ffff:192.0.2.7')).toBe('192.0.2.7')
    expect(placeOf('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64')
    expect(placeOf('2001:DB8:1:2::9')).toBe('2001:db8:1:2::/64')
    expect(placeOf('2001:0db8:1:0002:ffff::')).toBe('2001:db8:1:2::/64')
    expect(placeOf('fe80::1%eth0')).toBe('fe80:0:0:0::/64')
    expect(placeOf('::1')).toBe('0:0:0:0::/64')
  })
})
