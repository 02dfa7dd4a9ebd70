import { Command } from 'commander'
import { describe, expect, it, vi } from 'vitest'
import { type EgressOptions, egressOption, flagsOf, withEgress } from './egress.js'

const parsed = async (words: readonly string[]) => {
  const command = withEgress(new Command()).parse([...words], { from: 'user' })
  return await egressOption(command.opts<EgressOptions>())
}

describe('options of what a capsule may reach', () => {
  it('say the policy that they were made of', async () => {
    const policy = { internet: false, allow: ['pypi.org', '*.example.org', '203.0.113.7'], deny: ['198.51.100.0/24'] }
    const flags = flagsOf(policy)
    expect(flags.join(' ')).toBe(
      "--no-internet --allow pypi.org --allow '*.example.org' --allow 203.0.113.7 --deny 198.51.100.0/24",
    )
    expect(await parsed(flags.flatMap((flag) => flag.replaceAll("'", '').split(' ')))).toEqual(policy)
    expect(flagsOf({ internet: true, allow: [], deny: [] })).toEqual([])
  })

  it('say nothing, or that it learns', async () => {
    expect(await parsed([])).toBeUndefined()
    expect(await parsed(['--learn'])).toEqual({ internet: true, allow: [], deny: [], learn: true })
  })

  it('say headers that are set, by where their values are', async () => {
    vi.stubEnv('WRENN_TEST_TOKEN', 't0ken')
    try {
      const given = 'host=api.example.org,header=authorization,scheme=Bearer,env=WRENN_TEST_TOKEN'
      expect(await parsed(['--header-secret', given])).toEqual({
        internet: true,
        allow: [],
        deny: [],
        rules: [{ host: 'api.example.org', headers: { authorization: 'Bearer t0ken' } }],
      })
    } finally {
      vi.unstubAllEnvs()
    }
  })
})
