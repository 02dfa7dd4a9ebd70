import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DomainSet, parseDomain, parseHostName } from './domain-names.js'

describe('a domain of a policy', () => {
  it.each([
    ['example.org', 'example.org'],
    ['Example.ORG.', 'example.org'],
    ['*.example.org', '*.example.org'],
    ['*.Example.org.', '*.example.org'],
    ['xn--bcher-kva.example', 'xn--bcher-kva.example'],
    ['_dmarc.example.org', '_dmarc.example.org'],
    [`${'a'.repeat(63)}.example`, `${'a'.repeat(63)}.example`],
  ])('%s is kept as %s', (text, kept) => {
    expect(parseDomain(text)).toBe(kept)
  })

  it.each([
    '',
    '.',
    '*',
    '*.',
    '*.com',
    'com',
    'localhost',
    'a..b',
    '.example.org',
    'example.org..',
    '*.*.example.org',
    'a.*.example.org',
    '*example.org',
    '-a.example',
    'a-.example',
    'bücher.example',
    'exa mple.org',
    'example.org/path',
    'example.org:443',
    'https://example.org',
    '203.0.113.7',
    '203.0.113.7.',
    'a.1',
    'a.0x7f',
    '2001:db8::1',
    `${'a'.repeat(64)}.example`,
    `${'a.'.repeat(130)}example`,
  ])('is not "%s"', (text) => {
    expect(parseDomain(text)).toBeUndefined()
  })

  it('is its own form, whatever was given', () => {
    fc.assert(
      fc.property(fc.oneof(fc.domain(), fc.string()), (text) => {
        const kept = parseDomain(text)
        if (kept !== undefined) expect(parseDomain(kept)).toBe(kept)
      }),
    )
    expect(parseHostName('*.example.org')).toBeUndefined()
  })
})

describe('a set of domains', () => {
  const domains = new DomainSet(['example.org', '*.example.net', '*.deep.example.net'])

  it.each([
    ['example.org', 'example.org'],
    ['www.example.org', undefined],
    ['example.net', undefined],
    ['a.example.net', '*.example.net'],
    ['a.b.example.net', '*.example.net'],
    ['a.deep.example.net', '*.deep.example.net'],
    ['notexample.net', undefined],
    ['example.net.evil.example', undefined],
  ])('finds %s in %s', (name, found) => {
    expect(domains.find(name)).toBe(found)
  })
})
