import { describe, expect, it } from 'vitest'
import { EscapeFilter } from './escape.js'

function type(...pieces: string[]): { text: string; detached: boolean } {
  const filter = new EscapeFilter()
  let text = ''
  for (const piece of pieces) {
    const { pass, detach } = filter.feed(Buffer.from(piece))
    text += Buffer.from(pass).toString()
    if (detach) return { text, detached: true }
  }
  return { text, detached: false }
}

describe('EscapeFilter', () => {
  it('detaches on Enter ~ . however the keys arrive', () => {
    expect(type('ls\r~.')).toEqual({ text: 'ls\r', detached: true })
    expect(type('ls\r', '~', '.')).toEqual({ text: 'ls\r', detached: true })
    expect(type('~.')).toEqual({ text: '', detached: true })
  })

  it('passes every other tilde on', () => {
    expect(type('cd ~.\r')).toEqual({ text: 'cd ~.\r', detached: false })
    expect(type('\r~~.')).toEqual({ text: '\r~.', detached: false })
    expect(type('\r~/bin\r')).toEqual({ text: '\r~/bin\r', detached: false })
  })
})
