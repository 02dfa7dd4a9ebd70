import { describe, expect, it } from 'vitest'
import { highlight } from './highlight.js'
import { languageOf } from './languages.js'

describe('highlight', () => {
  it('says what the pieces of a program are, and leaves out none of it', async () => {
    const text = 'def f(n):\n    return "a\\tb" + str(n)  # why\n\nx = 1\n'
    const pieces = (await highlight('a.py', text)) ?? []
    expect(pieces.map((piece) => piece.text).join('')).toBe(text)
    const kindOf = (part: string) => pieces.find((piece) => piece.text.includes(part))?.kind
    expect([kindOf('return'), kindOf('# why'), kindOf('1')]).toEqual(['keyword', 'comment', 'constant'])
    expect(kindOf('"')).toBe('string')
  })

  it('knows every language that it names', async () => {
    for (const ending of 'bash c css diff go html ini js json md py rs sh sql toml ts tsx yaml'.split(' ')) {
      const pieces = await highlight(`a.${ending}`, 'a = "b"\n')
      expect([ending, pieces?.map((piece) => piece.text).join('')]).toEqual([ending, 'a = "b"\n'])
    }
    expect((await highlight('Dockerfile', 'FROM base'))?.[0]).toEqual({ text: 'FROM', kind: 'keyword' })
  })

  it('leaves alone what it does not know, and what is long', async () => {
    expect(languageOf('LICENSE')).toBeUndefined()
    expect(await highlight('a.txt', 'x')).toBeUndefined()
    expect(await highlight('a.py', 'x = 1\n'.repeat(20_000))).toBeUndefined()
  })
})
