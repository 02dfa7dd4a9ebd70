import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLogger } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readKeyFile } from './key-file.js'
import { Keyring, parseKey } from './keyring.js'

const keyOf = (byte: number): Buffer => Buffer.alloc(32, byte)

describe('a kept secret', () => {
  it('opens in its own place alone, and never the same text twice', () => {
    const keyring = new Keyring([keyOf(1)])
    const [one, other] = [keyring.seal('JBSWY3DP', 'totp:usr-1'), keyring.seal('JBSWY3DP', 'totp:usr-1')]
    expect(one).toMatch(/^v1\.[0-9a-f]{8}\.[A-Za-z0-9_-]+$/)
    expect(one).not.toBe(other)
    expect(keyring.open(one, 'totp:usr-1')).toEqual({ text: 'JBSWY3DP', isCurrent: true })
    expect(() => keyring.open(one, 'totp:usr-2')).toThrow()
  })

  it('does not open when anything of it was changed', () => {
    const keyring = new Keyring([keyOf(1)])
    const sealed = keyring.seal('a secret', 'x')
    const [version, id, body = ''] = sealed.split('.')
    const bytes = Buffer.from(body, 'base64url')
    for (let at = 0; at < bytes.length; at += 5) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ 1
      expect(() => keyring.open(`${version}.${id}.${changed.toString('base64url')}`, 'x')).toThrow()
    }
    for (const cut of ['', 'AAAA', body.slice(0, 30)]) {
      expect(() => keyring.open(`${version}.${id}.${cut}`, 'x')).toThrow()
    }
  })

  it('opens while its key is among those that are given, and says when another one encrypts now', () => {
    const old = new Keyring([keyOf(1)])
    const sealed = old.seal('a secret', 'x')
    const both = new Keyring([keyOf(2), keyOf(1)])
    expect(both.open(sealed, 'x')).toEqual({ text: 'a secret', isCurrent: false })
    expect(() => old.open(both.seal('a secret', 'x'), 'x')).toThrow(/the key [0-9a-f]{8}, which/)
  })

  it('is told from others by a digest that hangs on the key and the place', () => {
    const keyring = new Keyring([keyOf(1)])
    const digest = keyring.digest('a secret', 'x')
    expect(new Keyring([keyOf(1), keyOf(2)]).digest('a secret', 'x')).toBe(digest)
    const others = [
      keyring.digest('a secret', 'y'),
      keyring.digest('a secre', 'x'),
      new Keyring([keyOf(2)]).digest('a secret', 'x'),
    ]
    expect(new Set([digest, ...others]).size).toBe(4)
  })

  it('is not the only use of a key: keys for others are derived of it, which name it and tell nothing about it', () => {
    const [old, both] = [new Keyring([keyOf(1)]), new Keyring([keyOf(2), keyOf(1)])]
    const { key, keyId } = old.derive('states of team-1')
    expect(old.derive('states of team-1')).toEqual({ key, keyId })
    expect(old.derive('states of team-2').key).not.toEqual(key)
    expect(key).not.toEqual(keyOf(1))
    // With the key that encrypts now, or with the one that was asked for by what it has sealed.
    expect(both.derive('states of team-1').key).not.toEqual(key)
    expect(both.derive('states of team-1', old.sealPrefix)).toEqual({ key, keyId })
    expect(() => new Keyring([keyOf(2)]).derive('states of team-1', old.sealPrefix)).toThrow(keyId)
  })

  it('is refused without a key', () => {
    const none = new Keyring([])
    expect([none.isEmpty, new Keyring([keyOf(1)]).isEmpty]).toEqual([true, false])
    expect(() => none.digest('a secret', 'x')).toThrow(expect.objectContaining({ code: 'not_supported' }))
    expect(() => none.seal('a secret', 'x')).toThrow(expect.objectContaining({ code: 'not_supported' }))
  })
})

describe('keys', () => {
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'wrenn-test-keys-'))
  })
  afterEach(async () => {
    await rm(dir, { recursive: true })
  })

  it('are 64 hexadecimal digits, or base64 of 32 bytes', () => {
    const key = keyOf(0xfe)
    for (const text of [key.toString('hex'), key.toString('base64'), key.toString('base64url')]) {
      expect(parseKey(text)).toEqual(key)
    }
    for (const text of ['', 'password', 'ab'.repeat(31), 'zz'.repeat(32), keyOf(1).toString('base64').slice(4)]) {
      expect(parseKey(text)).toBeUndefined()
    }
  })

  it('are made once in an empty file, for its owner alone', async () => {
    const path = join(dir, 'key')
    await writeFile(path, '', { mode: 0o600 })
    const { ino } = await stat(path)
    const [made] = await readKeyFile(path, silentLogger)
    expect(made).toHaveLength(32)
    expect(await stat(path)).toMatchObject({ ino, mode: 0o100_600 })
    expect(await readKeyFile(path, silentLogger)).toEqual([made])
    const [elsewhere] = await readKeyFile(join(dir, 'another'), silentLogger)
    expect((await stat(join(dir, 'another'))).mode & 0o777).toBe(0o600)
    expect(elsewhere).not.toEqual(made)
  })

  it('are those of all lines, the first one first, and a file with anything else is left alone', async () => {
    const path = join(dir, 'key')
    await writeFile(path, `${keyOf(2).toString('hex')}\n\n${keyOf(1).toString('base64')}\n`)
    expect(await readKeyFile(path, silentLogger)).toEqual([keyOf(2), keyOf(1)])
    const broken = `${keyOf(2).toString('hex')}\nhalf a key`
    await writeFile(path, broken)
    await expect(readKeyFile(path, silentLogger)).rejects.toMatchObject({ code: 'invalid_config' })
    expect(await readFile(path, 'utf8')).toBe(broken)
  })
})
