import { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { type EgressOptions, egressOption, flagsOf, withEgress } from './egress.js'

const parsed = (words: readonly string[]) => {
  const command = withEgress(new Command()).parse([...words], { from: 'user' })
  return egressOption(command.opts<EgressOptions>())
}

describe('options of what a capsule may reach', () => {
  it('say the policy that they were made of', () => {
    const policy = { internet: false, allow: ['pypi.org', '*.example.org', '203.0.113.7'], deny: ['198.51.100.0/24'] }
    const flags = flagsOf(policy)
    expect(flags.join(' ')).toBe(
      "--no-internet --allow pypi.org --allow '*.example.org' --allow 203.0.113.7 --deny 198.51.100.0/24",
    )
    expect(parsed(flags.flatMap((flag) => flag.replaceAll("'", '').split(' ')))).toEqual(policy)
    expect(flagsOf({ internet: true, allow: [], deny: [] })).toEqual([])
  })

  it('say nothing, or that it learns', () => {
    expect(parsed([])).toBeUndefined()
    expect(parsed(['--learn'])).toEqual({ internet: true, allow: [], deny: [], learn: true })
  })
})
