// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are what is tested
import { describe, expect, it } from 'vitest'
import { DockerfileWordError, expandDockerfileWord, MAX_WORD_LENGTH, splitDockerfileWords } from './dockerfile-words.js'

const known: Readonly<Record<string, string>> = { x: 'ex', empty: '', path: '/usr/bin' }
const expand = (word: string): string => expandDockerfileWord(word, (name) => known[name])

describe('a word of a Dockerfile', () => {
  // The forms and what becomes of them: https://docs.docker.com/reference/dockerfile/#environment-replacement
  it.each([
    ['$x', 'ex'],
    ['${x}y', 'exy'],
    ['$none', ''],
    ['${none:-other}', 'other'],
    ['${none-other}', 'other'],
    ['${empty:-other}', 'other'],
    ['${empty-other}', ''],
    ['${x:+set}', 'set'],
    ['${empty:+set}', ''],
    ['${empty+set}', 'set'],
    ['${none:-${x}/$x}', 'ex/ex'],
    ['${none:-"}"}', '}'],
    ['${x:?must be there}', 'ex'],
    ['/opt:$path', '/opt:/usr/bin'],
    ["'$x'", '$x'],
    ['"$x y"', 'ex y'],
    ['"a\\"b\\$x\\n"', 'a"b$x\\n'],
    ['\\$x\\ y', '$x y'],
    ['$', '$'],
    ['$.x', '$.x'],
    ['a$', 'a$'],
  ])('%s is %s', (word, expected) => expect(expand(word)).toBe(expected))

  it.each(['"a', "'a", '${x', '${x%y}', '${x/a/b}', '${}', '${none:?}', '${none?why}'])('%s is refused', (word) =>
    expect(() => expand(word)).toThrow(DockerfileWordError),
  )

  it('does not grow without an end', () => {
    const lookup = (name: string): string | undefined => (name === 'x' ? 'x'.repeat(1024) : undefined)
    const most = MAX_WORD_LENGTH / 1024
    expect(expandDockerfileWord('$x'.repeat(most), lookup)).toHaveLength(MAX_WORD_LENGTH)
    for (const word of ['$x', '${x}', '${x:-}', '${none:-$x}', '"$x"', '${x:?}']) {
      expect(() => expandDockerfileWord(word.repeat(most + 1), lookup), word).toThrow('more than 131072 characters')
    }
    expect(() => expand('a'.repeat(MAX_WORD_LENGTH + 1))).toThrow(DockerfileWordError)
    expect(() => expand(`"${'a'.repeat(1000)}`)).toThrow(/^"a{199}… has a quote/)
  })

  it('ends at a blank that is neither quoted nor escaped', () => {
    expect(splitDockerfileWords(' a  "b c" d\\ e \'f g\'h "i\\" j" ')).toEqual([
      'a',
      '"b c"',
      'd\\ e',
      "'f g'h",
      '"i\\" j"',
    ])
    expect(splitDockerfileWords('')).toEqual([])
  })
})
