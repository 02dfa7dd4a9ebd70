import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { EntryInfoSchema, FileType, ListDirResponseSchema } from '@wrenn/protocol/guest'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeEntries } from './entry-encoding.js'

/** `__proto__` is no key of a plain object, which is what the general decoder makes of a map. */
const key = fc.string().filter((text) => text !== '__proto__')

const entry = fc.record(
  {
    name: fc.string({ unit: 'grapheme' }),
    type: fc.constantFrom(FileType.FILE, FileType.DIRECTORY, FileType.SYMLINK, FileType.UNSPECIFIED),
    path: fc.string({ maxLength: 5_000 }),
    size: fc.bigInt({ min: 0n, max: BigInt(Number.MAX_SAFE_INTEGER) }),
    mode: fc.nat(0o7777),
    permissions: fc.string(),
    owner: fc.string(),
    group: fc.string(),
    modifiedTime: fc.record({
      seconds: fc.bigInt({ min: -62_135_596_800n, max: 253_402_300_799n }),
      nanos: fc.nat(999_999_999),
    }),
    symlinkTarget: fc.string(),
    metadata: fc.dictionary(key, fc.string(), { noNullPrototype: true }),
    isSymlink: fc.boolean(),
  },
  { requiredKeys: ['name'] },
)

describe('encodeEntries', () => {
  it('writes what the general decoder reads back, as the general encoder would', () => {
    const property = fc.property(fc.array(entry, { maxLength: 20 }), (entries) => {
      const expected = create(ListDirResponseSchema, { entries: entries.map((each) => create(EntryInfoSchema, each)) })
      const bytes = encodeEntries(entries)
      expect(fromBinary(ListDirResponseSchema, bytes)).toEqual(expected)
      expect(bytes.length).toBe(toBinary(ListDirResponseSchema, expected).length)
    })
    fc.assert(property, { numRuns: 200 })
  })
})
