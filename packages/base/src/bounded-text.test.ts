import { Readable } from 'node:stream'
import { expect, it } from 'vitest'
import { boundedText } from './bounded-text.js'

it('a body is read up to its bound, and what is beyond it is left', async () => {
  let asked = 0
  async function* parts() {
    for (; ; asked++) yield Buffer.from('abcd')
  }
  expect(await boundedText(parts(), 6)).toBe('abcdab')
  expect(asked).toBe(1)
  expect(await boundedText(Readable.from([Buffer.from('gr\u00fcn')]), 100)).toBe('gr\u00fcn')
  expect(await boundedText(Readable.from([]), 100)).toBe('')
})
