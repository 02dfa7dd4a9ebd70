import { channelProviders, channelTargets } from '@wrenn/protocol'
import { chatRules } from '@wrenn/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { parseNetworks } from '../address-rule.js'
import { Sender } from '../sender.js'
import { providers } from './index.js'

const ORIGIN = 'http://127.0.0.1:9'
const sender = new Sender({ allowed: parseNetworks('127.0.0.1') ?? [], timeoutMs: 1_000 })
afterAll(() => sender.close())

/** What works. */
function configOf(provider: (typeof channelProviders)[number]): Readonly<Record<string, string>> {
  return provider === 'webhook' ? { url: `${ORIGIN}/hook` } : chatRules[provider].config(ORIGIN)
}

describe.each(channelProviders)('the fields of %s', (provider) => {
  const { fields } = channelTargets[provider]
  const config = configOf(provider)
  const parse = (given: Readonly<Record<string, string>>) => providers[provider].parse(given, sender.guard)

  it('are those that people are asked for', () => {
    const names = fields.map(({ name }) => name).join(', ')
    expect(() => parse({ ...config, nonsense: 'x' })).toThrow(`the fields are ${names}`)
  })

  it('are needed where that is said', () => {
    expect(() => parse(config)).not.toThrow()
    for (const { name, isNeeded } of fields) {
      const { [name]: _without, ...rest } = config
      if (isNeeded) expect(() => parse(rest)).toThrow(`config.${name}: is needed`)
      else expect(() => parse(rest)).not.toThrow()
    }
  })
})
