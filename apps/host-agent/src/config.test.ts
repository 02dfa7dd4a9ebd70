import { describe, expect, it } from 'vitest'
import { readConfig } from './config.js'

describe('what the operator says about registries', () => {
  it('is nothing at first: every registry on public addresses, by TLS', () => {
    expect(readConfig({}).registries).toEqual({ registries: [], allowed: [], plain: [] })
  })

  it('is a list of hosts, or `none` alone', () => {
    const said = (WRENN_REGISTRIES: string) => readConfig({ WRENN_REGISTRIES }).registries.registries
    expect(said('ghcr.io, *.Example.org ,h.example:5000')).toEqual(['ghcr.io', '*.example.org', 'h.example:5000'])
    expect(said('none')).toBe('none')
    expect(() => said('none,ghcr.io')).toThrow('`none` alone')
    expect(() => said('https://ghcr.io')).toThrow('must be hosts')
  })

  it('allows networks, each at every port or at one', () => {
    const said = (WRENN_REGISTRIES_ALLOW: string) => readConfig({ WRENN_REGISTRIES_ALLOW }).registries.allowed
    const loopback = { base: 0x7f000001, bits: 32 }
    expect(said('127.0.0.1:5000, 10.1.0.0/16')).toEqual([
      { network: loopback, port: 5000 },
      { network: { base: 0x0a010000, bits: 16 } },
    ])
    for (const wrong of ['127.0.0.1:', '127.0.0.1:0', '127.0.0.1:70000', 'h.example:5000', '::1'])
      expect(() => said(wrong)).toThrow('WRENN_REGISTRIES_ALLOW')
  })
})
