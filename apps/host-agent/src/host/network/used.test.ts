import { describe, expect, it } from 'vitest'
import { parseUsed } from './used.js'

const counter = (packets: number) => ({ packets, bytes: packets * 30 })
const udp = (port: number) => ({ elem: { val: { concat: ['udp', '198.51.100.2', port] }, counter: counter(2) } })
const listing = (elem: readonly object[]): string =>
  JSON.stringify({
    nftables: [
      { metainfo: { version: '1.0.6', json_schema_version: 1 } },
      { set: { family: 'inet', name: 'never', table: 'wrenn', elem: ['10.0.0.1'] } },
      { set: { family: 'inet', name: 'used', table: 'wrenn', size: 256, elem } },
      { set: { name: 'pinged', elem: [{ elem: { val: '203.0.113.2', counter: counter(3) } }] } },
    ],
  })

describe('what nft has counted', () => {
  it('is read from its sets, and no others', () => {
    expect(parseUsed(listing([udp(443)]))).toEqual({
      isComplete: true,
      destinations: [
        { protocol: 'icmp', address: '203.0.113.2', port: 0, count: 3 },
        { protocol: 'udp', address: '198.51.100.2', port: 443, count: 2 },
      ],
    })
    expect(parseUsed('{"nftables":[{"metainfo":{}},{"set":{"name":"used"}}]}').destinations).toEqual([])
  })

  it('is not all when a set is full', () => {
    expect(parseUsed(listing(Array.from({ length: 256 }, (_, port) => udp(port))))).toMatchObject({ isComplete: false })
  })
})
