import fc from 'fast-check'

const odd = [
  [
    '-rf',
    ' ',
    ' a b ',
    'new\nline',
    'tab\t',
    '*',
    '$HOME',
    '~',
    '"',
    "'",
    '\\',
    '.hidden',
    '...',
    '%FE',
    '?',
    '#',
    '&',
    '+',
  ],
  ['é', 'e\u0301', '日本語', '😀', '\ufeff', '\ufffd', '\u202e', '\x1b[31m', '\x7f'],
].flatMap((group) => group.map((text) => Buffer.from(text)))

/** What is not UTF-8: lone and overlong bytes, surrogates, more than Unicode has; and text that looks like its escapes. */
const notText = [
  'fe',
  'ff',
  '63e9',
  '80',
  'c080',
  'eda080',
  'f4908080',
  'efbfbd3830',
  'efbfbd',
  'efbfbd6665',
  'f09f98',
].map((hex) => Buffer.from(hex, 'hex'))

const longest = [
  Buffer.alloc(255, 'n'),
  Buffer.from('é'.repeat(127)),
  Buffer.alloc(255, 0xfe),
  Buffer.from('語'.repeat(85)),
]

const anyBytes = fc
  .uint8Array({ min: 1, max: 255, minLength: 1, maxLength: 12 })
  .map((bytes) => Buffer.from(bytes.filter((byte) => byte !== 0x2f)))
  .filter((name) => name.length > 0 && !['.', '..'].includes(name.toString('latin1')))

/** A file name as the kernel takes it. Few simple ones, so that they are met again. */
export const nameBytes = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...['a', 'b', 'c'].map((text) => Buffer.from(text))) },
  { weight: 3, arbitrary: fc.constantFrom(...odd) },
  { weight: 3, arbitrary: fc.constantFrom(...notText) },
  { weight: 1, arbitrary: fc.constantFrom(...longest) },
  { weight: 2, arbitrary: anyBytes },
)

const KIB = 1024
const sizes = [0, 1, 2, 511, 512, 513, 4_095, 4_096, 4_097]
const edges = [64 * KIB, 256 * KIB, 1024 * KIB].flatMap((edge) => [edge - 1, edge, edge + 1])

export interface ContentSpec {
  readonly sizeBytes: number
  /** Contents with different ones differ in every byte that they have in common. */
  readonly salt: number
  /** Zeros between its first and last bytes, which take no room on the disk. */
  readonly isSparse: boolean
}

const sizeBytes = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...sizes) },
  { weight: 2, arbitrary: fc.constantFrom(...edges) },
  { weight: 2, arbitrary: fc.nat(20_000) },
)

export const content: fc.Arbitrary<ContentSpec> = fc.record({
  sizeBytes,
  salt: fc.nat(255),
  isSparse: fc.boolean(),
})

/** The bytes of a content that is sent or planted. */
export function bytesOf({ sizeBytes: size, salt, isSparse }: ContentSpec): Buffer<ArrayBuffer> {
  const bytes = Buffer.alloc(size)
  for (let at = 0; at < size; at++) bytes[at] = (salt + at * 7 + (at >> 8) * 13) & 0xff
  if (isSparse && size > 3 * 4_096) bytes.fill(0, 4_096, size - 4_096)
  return bytes
}

export const mode = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(0o644, 0o600, 0o755, 0o666) },
  { weight: 2, arbitrary: fc.constantFrom(0, 0o4755, 0o2755, 0o6777, 0o1777, 0o444, 0o222, 0o111) },
  { weight: 1, arbitrary: fc.nat(0o7777) },
)

export const directoryMode = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(0o755, 0o777) },
  { weight: 2, arbitrary: fc.constantFrom(0o700, 0o1777, 0o2775, 0o000, 0o555, 0o444, 0o311) },
)
