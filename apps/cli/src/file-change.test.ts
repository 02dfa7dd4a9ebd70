import type { FileChange } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { showChange } from './file-change.js'

const plain = { colored: (_color: string, text: string) => text }

function change(more: Partial<FileChange>): FileChange {
  return { change: 'added', path: '/a', pathBytes: undefined, type: 'file', sizeBytes: 0, what: [], ...more }
}

describe('a changed file', () => {
  it('is one line that says how', () => {
    expect(showChange(change({}), plain)).toBe('A /a')
    expect(showChange(change({ change: 'removed', type: 'directory' }), plain)).toBe('D /a/')
    expect(showChange(change({ change: 'changed', what: ['content', 'mode'] }), plain)).toBe('M /a [content, mode]')
    expect(showChange(change({ path: '/über 1' }), plain)).toBe('A /über 1')
  })

  it('cannot steer the terminal by its name', () => {
    expect(showChange(change({ path: '/a\u001b[2J\n' }), plain)).toBe('A "/a\\033[2J\\012"')
    expect(showChange(change({ path: '/\u202egpj' }), plain)).toBe('A "/\\342\\200\\256gpj"')
  })

  it('has the text form of its name where that is not UTF-8, and its very bytes among escapes', () => {
    expect(showChange(change({ path: '/\ufffdff"' }), plain)).toBe('A /\ufffdff"')
    expect(showChange(change({ path: '/\ufffdff\n"' }), plain)).toBe('A "/\\377\\012\\""')
  })
})
