import { describe, expect, it } from 'vitest'
import { collectPair, parseDurationMs, parseMib, showBytes } from './units.js'

describe('parseMib', () => {
  it.each([
    ['512', 512],
    ['512m', 512],
    ['2g', 2048],
    ['1.5GiB', 1536],
  ])('reads %s as %i MiB', (text, mib) => expect(parseMib(text)).toBe(mib))

  it.each(['', '-1', '5x', 'g', '1 2'])('refuses %j', (text) => expect(() => parseMib(text)).toThrow('Give MiB'))
})

describe('parseDurationMs', () => {
  it.each([
    ['30', 30_000],
    ['1.5s', 1500],
    ['5m', 300_000],
    ['500ms', 500],
  ])('reads %s as %i ms', (text, ms) => expect(parseDurationMs(text)).toBe(ms))

  it('refuses names of objects of the language', () => {
    expect(() => parseDurationMs('1constructor')).toThrow('Give seconds')
  })
})

describe('collectPair', () => {
  it('splits at the first equals sign and collects', () => {
    expect(collectPair('B==x', { A: '' })).toEqual({ A: '', B: '=x' })
    expect(() => collectPair('=x')).toThrow('KEY=VALUE')
  })
})

describe('showBytes', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [3 * 1024 ** 3, '3.0 GiB'],
  ])('shows %i as %s', (bytes, text) => expect(showBytes(bytes)).toBe(text))
})
