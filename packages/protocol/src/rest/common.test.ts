import { describe, expect, it } from 'vitest'
import { capsuleEnvsSchema, envsSchema } from './common.js'

const messageOf = (envs: object, schema = envsSchema) => {
  const issue = schema.safeParse(envs).error?.issues[0]
  return issue && `${issue.path.join('.')}: ${issue.message}`
}
const many = (count: number, size: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`V${index}`, 'x'.repeat(size)]))

describe('an environment', () => {
  it('is refused by the name of a variable that is longer than the kernel passes, counted in bytes', () => {
    expect(messageOf({ A: 'x'.repeat(131_069) })).toBeUndefined()
    expect(messageOf({ A: 'x'.repeat(131_070) })).toMatch(/^A: .*131072 bytes.*131071/)
    expect(messageOf({ A: 'é'.repeat(70_000) })).toMatch(/^A: .*140002 bytes/)
    expect(messageOf({ A: 'x'.repeat(3_000_000) })).toMatch(/^A: /)
  })

  it('is refused as a whole when a program cannot be given it, or when it would leave nothing to the commands', () => {
    expect(messageOf(many(20, 100_000))).toBeUndefined()
    expect(messageOf(many(30, 100_000))).toMatch(/the environment has 3000\d+ bytes, at most 2097152/)
    expect(messageOf(many(20, 100_000), capsuleEnvsSchema)).toMatch(/at most 262144/)
    expect(messageOf(many(2, 100_000), capsuleEnvsSchema)).toBeUndefined()
  })

  it('is refused with names that no environment can hold, and with NUL bytes', () => {
    for (const envs of [{ '': 'x' }, { 'A=B': 'x' }, { 'A\0': 'x' }, { A: 'x\0' }]) {
      expect(messageOf(envs)).toBeDefined()
    }
  })
})
