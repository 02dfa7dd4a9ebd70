import { channelFilters } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { filterGroups, isCovered, pruned } from './filters.js'

describe('what a channel is told of', () => {
  it('is offered by what it is about, and all of it is', () => {
    expect(filterGroups.map(({ name }) => name)).toEqual([
      ...['capsule', 'checkpoint', 'template', 'build', 'api_key', 'member', 'quota', 'host'],
    ])
    const offered = filterGroups.flatMap(({ all, types }) => [
      all,
      ...types.flatMap(({ type, states }) => [type, ...states]),
    ])
    expect(['*', ...offered].sort()).toEqual([...channelFilters].sort())
  })

  it('is covered by what is wider, and never by itself', () => {
    expect(isCovered('capsule.state:paused', ['capsule.state'])).toBe(true)
    expect(isCovered('capsule.state', ['capsule.*', 'capsule.state'])).toBe(true)
    expect(isCovered('capsule.state', ['capsule.state', 'capsule.state:paused', 'template.*'])).toBe(false)
    expect(isCovered('*', ['*', 'capsule.*'])).toBe(false)
    expect(isCovered('host.down', ['*', 'capsule.*'])).toBe(false)
    expect(isCovered('host.down', ['*', 'host.*'])).toBe(true)
  })

  it('is said once', () => {
    expect(pruned(['capsule.state:paused', 'capsule.state', 'member.left'])).toEqual(['capsule.state', 'member.left'])
    expect(pruned(['*', 'capsule.*', 'host.up'])).toEqual(['*', 'host.up'])
  })
})
