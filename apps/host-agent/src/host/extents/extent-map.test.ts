import { describe, expect, it } from 'vitest'
import { parseExtent } from './extent-map.js'

describe('a line of filefrag', () => {
  it('tells place, length and flags, with and without the expected place', () => {
    expect(parseExtent('   0:        0..    8191:   14680064..  14688255:   8192:             shared')).toEqual({
      offset: 0,
      length: 8192,
      physical: 14_680_064,
      shared: true,
      unwritten: false,
    })
    expect(
      parseExtent('   4: 20971520..22020095:   13631488..  14680063: 1048576:   29360128: last,unwritten,eof'),
    ).toEqual({
      offset: 20_971_520,
      length: 1_048_576,
      physical: 13_631_488,
      shared: false,
      unwritten: true,
    })
    expect(parseExtent('   1:     8192..   12287:   63963136..  63967231:   4096:   14688256:')?.shared).toBe(false)
  })

  it('has no place for what is not on the device as it is', () => {
    expect(
      parseExtent('   0:        0..    4095:          0..      4095:   4096:             last,inline,eof')?.physical,
    ).toBe(undefined)
  })

  it('is none of the other lines', () => {
    expect(parseExtent('File size of b is 22020096 (22020096 blocks of 1 bytes)')).toBeUndefined()
    expect(parseExtent(' ext:     logical_offset:        physical_offset: length:   expected: flags:')).toBeUndefined()
  })
})
