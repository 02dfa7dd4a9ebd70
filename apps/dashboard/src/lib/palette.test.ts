import { describe, expect, it } from 'vitest'
import { findEntries } from './palette.js'

const entries = [
  { label: 'Open web', words: 'cl-1' },
  { label: 'Capsules' },
  { label: 'Web shop', words: 'cl-2' },
  { label: 'Theme: light' },
]
const labels = (search: string) => findEntries(entries, search).map(({ label }) => label)

describe('findEntries', () => {
  it('finds by every word, in labels and beside them', () => {
    expect(labels('open CL-1')).toEqual(['Open web'])
    expect(labels('theme dark')).toEqual([])
  })

  it('puts those first that begin so', () => {
    expect(labels('web')).toEqual(['Web shop', 'Open web'])
  })

  it('has everything where nothing is asked, but not without end', () => {
    expect(labels(' ')).toHaveLength(4)
    const many = Array.from({ length: 1000 }, (_, index) => ({ label: `box-${index}` }))
    expect(findEntries(many, 'box')).toHaveLength(50)
  })
})
