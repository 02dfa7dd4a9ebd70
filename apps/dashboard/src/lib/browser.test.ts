import { describe, expect, it } from 'vitest'
import { browserOf } from './browser.js'

describe('browserOf', () => {
  it('knows browsers that say they are others', () => {
    const edge =
      'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36 Edg/130.0'
    expect(browserOf(edge)).toBe('Edge on Windows')
    expect(browserOf('Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0')).toBe('Firefox on Linux')
  })

  it('shows what else there is', () => {
    expect([browserOf('curl/8.1'), browserOf('node'), browserOf('')]).toEqual([
      'curl',
      'node',
      'a program without a name',
    ])
  })
})
