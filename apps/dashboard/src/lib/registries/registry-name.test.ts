import { describe, expect, it } from 'vitest'
import { registryNamed } from './registry-name.js'

describe('a registry that is typed', () => {
  it.each([
    ['ghcr.io', 'ghcr.io'],
    [' https://GHCR.io/team/app ', 'ghcr.io'],
    ['registry.example:5000', 'registry.example:5000'],
    ['https://index.docker.io/v1/', 'docker.io'],
    ['localhost', 'localhost'],
    ['team', undefined],
    ['ghcr io', undefined],
    ['', undefined],
  ])('as %j is %j', (typed, name) => {
    expect(registryNamed(typed)).toBe(name)
  })
})
