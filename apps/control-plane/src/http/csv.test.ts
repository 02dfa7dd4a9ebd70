import { describe, expect, it } from 'vitest'
import { toCsv } from './csv.js'

describe('a table of comma-separated values', () => {
  it('has a header, a line for each row and nothing where a value is absent', () => {
    expect(toCsv(['date', 'hours'], [{ date: '2026-11-30', hours: 1.5 }, { hours: -2 }])).toBe(
      'date,hours\r\n2026-11-30,1.5\r\n,-2\r\n',
    )
  })

  it('quotes what would end a cell', () => {
    expect(toCsv(['name'], [{ name: 'a,b' }, { name: 'say "x"' }, { name: 'two\nlines' }])).toBe(
      'name\r\n"a,b"\r\n"say ""x"""\r\n"two\nlines"\r\n',
    )
  })

  it('lets no text be a formula', () => {
    for (const name of ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1']) {
      expect(toCsv(['name'], [{ name }])).toBe(`name\r\n'${name}\r\n`)
    }
    expect(toCsv(['name'], [{ name: '=A1,"B"' }])).toBe('name\r\n"\'=A1,""B"""\r\n')
  })
})
