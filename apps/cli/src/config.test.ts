import { describe, expect, it } from 'vitest'
import { readConfig } from './config.js'

describe('the key of the environment', () => {
  it('is taken without the line break that a paste or a file brought', () => {
    expect(readConfig({ WRENN_API_KEY: ' wrn_0123\r\n' }).apiKey).toBe('wrn_0123')
  })

  it('is none where there is nothing but white space', () => {
    expect(readConfig({ WRENN_API_KEY: '\n' }).apiKey).toBeUndefined()
  })
})
