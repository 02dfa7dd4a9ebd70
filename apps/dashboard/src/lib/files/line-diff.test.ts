import { describe, expect, it } from 'vitest'
import { lineDiff } from './line-diff.js'

const shown = (before: string | undefined, after: string | undefined) =>
  lineDiff(before, after).lines.map(
    ({ kind, text, before: old = '', after: now = '' }) => `${kind} ${old}/${now} ${text}`,
  )

describe('lineDiff', () => {
  it('numbers the lines of both texts, and leaves out what is the same far away', () => {
    const lines = Array.from({ length: 20 }, (_, index) => `line ${index + 1}`)
    const before = `${lines.join('\n')}\n`
    const after = before.replace('line 10\n', 'ten\nmore\n')
    expect(shown(before, after)).toEqual([
      'hunk / @@ -7,7 +7,8 @@',
      'same 7/7 line 7',
      'same 8/8 line 8',
      'same 9/9 line 9',
      'removed 10/ line 10',
      'added /10 ten',
      'added /11 more',
      'same 11/12 line 11',
      'same 12/13 line 12',
      'same 13/14 line 13',
    ])
    expect(lineDiff(before, after)).toMatchObject({ added: 2, removed: 1, isWhole: false })
  })

  it('shows all of a text that came or went', () => {
    expect(shown(undefined, '-a\nb\n')).toEqual(['hunk / @@ -0,0 +1,2 @@', 'added /1 -a', 'added /2 b'])
    expect(shown('a', undefined)).toEqual(['hunk / @@ -1,1 +0,0 @@', 'removed 1/ a'])
    expect(lineDiff(undefined, '')).toEqual({ lines: [], added: 0, removed: 0, isWhole: false })
  })

  it('tells of a last line that has no end', () => {
    expect(shown('a\n', 'a')).toEqual([
      'hunk / @@ -1,1 +1,1 @@',
      'removed 1/ a',
      'added /1 a',
      'note / No newline at end of file',
    ])
  })

  it('has nothing to tell of equal texts', () => {
    expect(lineDiff('a\n', 'a\n').lines).toEqual([])
  })

  it('sets texts one after the other that differ in nearly everything', () => {
    const text = (word: string) => Array.from({ length: 5_000 }, (_, index) => `${word} ${index}\n`).join('')
    const diff = lineDiff(text('old'), text('new'))
    expect(diff).toMatchObject({ added: 5_000, removed: 5_000, isWhole: true })
    expect(diff.lines[5_000]).toEqual({ kind: 'removed', text: 'old 4999', before: 5_000, after: undefined })
    expect(diff.lines[5_001]).toEqual({ kind: 'added', text: 'new 0', before: undefined, after: 1 })
  })
})
