import { describe, expect, it } from 'vitest'
import { LineStream } from './build-log.js'
import { MaskedStream, maskedLines, SecretMask } from './secret-mask.js'

/** A text of which no part comes twice. */
const long = Array.from({ length: 300 }, (_, index) => `<${index}>`).join('')

function inParts(mask: SecretMask, text: string, size: number): string {
  const stream = new MaskedStream(mask)
  let shown = ''
  for (let at = 0; at < text.length; at += size) shown += stream.write(text.slice(at, at + size))
  return shown + stream.end()
}

describe('the mask of a step', () => {
  it('knows each line of four characters and more once', () => {
    expect(maskedLines(' abcd \r\nabc\nabcd\n\nefghi')).toEqual(['abcd', 'efghi'])
  })

  it.each([
    ['the longer one of two that begin alike', ['abcd', 'abcdefgh'], 'x abcdefgh abcd y', 'x *** *** y'],
    ['both of two that overlap', ['abcd', 'cdefgh'], 'abcdefgh.', '***.'],
    ['all lines of one', ['line one\nline two\nabc'], 'line two, line one, abc', '***, ***, abc'],
    ['what signs of patterns are in', ['a.*b$'], 'a.*b$ axxb$', '*** axxb$'],
    ['a long one', [long], `[${long}]`, '[***]'],
    ['a long one beside what only begins so', [long], `${long.slice(0, 30)} ${long}`, `${long.slice(0, 30)} ***`],
    ['nothing where there is none', [], 'abcd', 'abcd'],
  ])('hides %s, however the text comes', (_, secrets, text, expected) => {
    const mask = new SecretMask(secrets)
    expect(mask.hide(text)).toBe(expected)
    for (const size of [1, 3, 7, 64, 100]) expect(inParts(mask, text, size), `by ${size}`).toBe(expected)
  })

  it('tells a line as soon as it has its end, and holds back what may go on', () => {
    const stream = new MaskedStream(new SecretMask(['secret']))
    expect(stream.write('a secr\nsecr')).toBe('a secr\n')
    expect(stream.write('et!')).toBe('***')
    expect(stream.end()).toBe('!')
  })

  it('shows no part of a secret where a long line is cut', async () => {
    const lines: string[] = []
    const onLine = async (line: string): Promise<void> => void lines.push(line)
    for (const before of [4000, 4090, 4095, 4096, 4097]) {
      lines.length = 0
      const stream = new LineStream(onLine, () => false, new SecretMask([long]))
      const bytes = Buffer.from(`${'.'.repeat(before)}${long}${'.'.repeat(5000)}`)
      for (let at = 0; at < bytes.length; at += 1000) await stream.write(bytes.subarray(at, at + 1000))
      await stream.end()
      expect(lines.join(''), `after ${before}`).toBe(`${'.'.repeat(before)}***${'.'.repeat(5000)}`)
    }
  })
})
