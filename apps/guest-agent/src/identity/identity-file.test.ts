import { appendFileSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { IdentityFile } from './identity-file.js'

let dir: string
let path: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-identity-'))
  path = join(dir, 'run', 'identity.json')
})
afterEach(() => rmSync(dir, { recursive: true }))

const identity = (secret: string, envs: Readonly<Record<string, string>> = {}) => ({
  secret,
  envs,
  defaultUser: 'root',
})

describe('the identity file', () => {
  it('gives the newest identity to the agent that comes next, and to nobody else', () => {
    expect(new IdentityFile(path).read()).toBeUndefined()
    const file = new IdentityFile(path)
    for (const secret of ['one', 'two', 'three']) file.write(identity(secret, { A: 'line\nbreak' }))
    expect(new IdentityFile(path).read()).toEqual(identity('three', { A: 'line\nbreak' }))
    expect(statSync(path).mode & 0o777).toBe(0o600)
    const next = new IdentityFile(path)
    next.write(identity('four'))
    expect(new IdentityFile(path).read()).toEqual(identity('four'))
  })

  it('does not grow for ever', () => {
    const file = new IdentityFile(path)
    const envs = { BIG: 'x'.repeat(300_000) }
    for (let turn = 0; turn < 10; turn++) file.write(identity(`turn-${turn}`, envs))
    expect(statSync(path).size).toBeLessThan(2_000_000)
    expect(new IdentityFile(path).read()?.secret).toBe('turn-9')
  })

  it('falls back to the last whole line of a damaged one', () => {
    const file = new IdentityFile(path)
    file.write(identity('whole'))
    appendFileSync(path, '{"secret":"ha')
    expect(new IdentityFile(path).read()?.secret).toBe('whole')
    appendFileSync(path, 'lf\n')
    expect(new IdentityFile(path).read()?.secret).toBe('whole')
    writeFileSync(path, 'nonsense')
    expect(new IdentityFile(path).read()).toBeUndefined()
  })
})
