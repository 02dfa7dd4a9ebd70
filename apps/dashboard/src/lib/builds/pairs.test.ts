import { describe, expect, it } from 'vitest'
import { pairsOf, secretIdsOf } from './pairs.js'

describe('build arguments', () => {
  it('are one a line, with whatever is in their values', () => {
    const text = ' A=1 \n\n# not this\nURL=https://x/?a=b\r\nEMPTY=\nnothing\n2=3'
    expect(pairsOf(text)).toEqual({ pairs: { A: '1', URL: 'https://x/?a=b', EMPTY: '' }, wrong: [6, 7] })
  })
})

describe('secrets', () => {
  it('are those that a Dockerfile asks for, once', () => {
    const text = [
      'RUN --mount=type=secret,id=npm --mount=type=secret,id=npm,env=A x',
      'RUN --mount=type=secret,target=/root/.netrc --mount=type=cache,target=/var y',
      'RUN --mount=id=last,type=secret z',
    ]
    expect(secretIdsOf(text.join('\n'))).toEqual(['npm', '.netrc', 'last'])
    expect(secretIdsOf('RUN x')).toEqual([])
  })
})
