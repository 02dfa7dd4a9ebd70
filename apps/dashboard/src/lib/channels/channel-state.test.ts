import { describe, expect, it } from 'vitest'
import { stateOf } from './channel-state.js'

describe('a channel', () => {
  it('is on, tries again, is paused, or was switched off', () => {
    const well = { isEnabled: true, problem: undefined, retryAt: undefined }
    const words = [
      well,
      { ...well, problem: 'It is away.', retryAt: new Date() },
      { ...well, isEnabled: false },
      { ...well, isEnabled: false, problem: 'It is gone.' },
    ].map((channel) => stateOf(channel).word)
    expect(words).toEqual(['on', 'trying again', 'paused', 'switched off'])
  })
})
