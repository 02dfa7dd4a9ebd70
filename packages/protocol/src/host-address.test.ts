import { expect, it } from 'vitest'
import { parseHostAddress } from './host-address.js'

it.each([
  ['host-1.example:7443', { host: 'host-1.example', port: 7443 }],
  ['10.1.2.3:1', { host: '10.1.2.3', port: 1 }],
  ['[2001:db8::1]:65535', { host: '2001:db8::1', port: 65_535 }],
  ['2001:db8::1:7443', undefined],
  ['10.1.2.3', undefined],
  [':7443', undefined],
  ['a:0', undefined],
  ['a:65536', undefined],
  ['-a:1', undefined],
  ['a b:1', undefined],
])('%s is an address of a host agent or none', (text, address) => {
  expect(parseHostAddress(text)).toEqual(address)
})
