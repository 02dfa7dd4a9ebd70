import { describe, expect, it } from 'vitest'
import { configOf, fieldsOf, labelOf, providers } from './target.js'

describe('the target of a channel', () => {
  it('has a name, also where a newer server has another one', () => {
    expect(providers.map(labelOf)).toContain('Microsoft Teams')
    expect([labelOf('pager'), fieldsOf('pager')]).toEqual(['pager', []])
  })

  it('is what was typed for it, and not for another one before', () => {
    const typed = { url: ' https://example.com/hook ', secret: '', webhook_url: 'https://hooks.slack.com/x' }
    expect(configOf('webhook', typed)).toEqual({ url: 'https://example.com/hook' })
    expect(configOf('slack', typed)).toEqual({ webhook_url: 'https://hooks.slack.com/x' })
  })
})
