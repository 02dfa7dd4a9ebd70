import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { pathBytes, pathText } from './path-text.js'
import { queryText } from './query-text.js'

describe('queryText', () => {
  it('takes a query apart as URLSearchParams does', () => {
    const queries = ['', 'a=1&b=2&a=3', 'a', '=x', 'a=b=c', '&&a=1&', 'a+b=c%20d', '%C3%A9=%2F', 'a=100%&b=%zz', 'x=é']
    for (const query of queries) expect([...queryText(query)]).toEqual([...new URLSearchParams(query)])
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.string({ unit: 'grapheme' })), (fields) => {
        const query = new URLSearchParams(fields).toString()
        expect([...queryText(query)]).toEqual([...new URLSearchParams(query)])
      }),
    )
  })

  it('keeps bytes that are not UTF-8 and leads to the same path from either form', () => {
    expect(queryText('path=/tmp/%FE').get('path')).toBe('/tmp/\ufffdfe')
    fc.assert(
      fc.property(fc.uint8Array(), (raw) => {
        const percent = [...raw].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')
        const text = encodeURIComponent(pathText(raw))
        expect(pathBytes(queryText(`path=${text}`).get('path') ?? '')).toEqual(Buffer.from(raw))
        const plain = raw.filter((byte) => byte < 0x80 || byte === 0xff)
        const bytes = [...plain].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')
        expect(pathBytes(queryText(`path=${bytes}`).get('path') ?? '')).toEqual(Buffer.from(plain))
        expect(queryText(`path=${percent}`).get('path')).toBeDefined()
      }),
    )
  })
})
