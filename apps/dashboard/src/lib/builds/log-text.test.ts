import type { BuildLine } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { linesWith, logText, piecesOf } from './log-text.js'

const lines = ['Compiling a', 'warning: compiling b', 'done'].map(
  (message): BuildLine => ({ at: new Date(0), level: 'info', step: '1', message }),
)

describe('a log', () => {
  it('is searched without regard to capitals, and not for nothing', () => {
    expect(linesWith(lines, 'COMPIL')).toEqual([0, 1])
    expect(linesWith(lines, '')).toEqual([])
  })

  it('shows where in a line something stands, each time', () => {
    const told = (message: string, search: string) =>
      piecesOf(message, search)
        .map(({ text, isFound }) => (isFound ? `[${text}]` : text))
        .join('')
    expect(told('Compiling a', 'compiling')).toBe('[Compiling] a')
    expect(told('a.b.a', 'A')).toBe('[a].b.[a]')
    expect(told('aaa', 'aa')).toBe('[aa]a')
    expect(told('none', '')).toBe('none')
    expect(told('İi', 'i')).toBe('İi')
  })

  it('is kept with times and steps', () => {
    expect(logText(lines.slice(2))).toBe('1970-01-01T00:00:00.000Z 1        done\n')
  })
})
