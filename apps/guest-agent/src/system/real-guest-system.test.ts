import { execFileSync } from 'node:child_process'
import { linkSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { hostsWith, writeText } from './real-guest-system.js'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-system-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

describe('writing a system file', () => {
  const path = () => join(dir, 'file')
  const read = (name = path()) => readFileSync(name, 'utf8')

  it('makes it, and writes over it, longer and shorter, in place', () => {
    writeText(path(), 'first\n')
    const { ino } = lstatSync(path())
    for (const text of ['a longer second\n', 'third\n', '']) {
      writeText(path(), text)
      expect([read(), lstatSync(path()).ino]).toEqual([text, ino])
    }
  })

  it('follows no link, waits for no pipe, and leaves the other names of a file alone', () => {
    const other = join(dir, 'other')
    for (const place of [
      () => symlinkSync(other, path()),
      () => linkSync(other, path()),
      () => execFileSync('mkfifo', [path()]),
    ]) {
      writeFileSync(other, 'untouched')
      place()
      writeText(path(), 'new')
      expect([read(), read(other), lstatSync(path()).isFile()]).toEqual(['new', 'untouched', true])
      rmSync(path())
    }
  })

  it('says so when it cannot', () => {
    mkdirSync(path())
    expect(() => writeText(path(), 'new')).toThrow(/EISDIR|ENOTEMPTY/)
  })
})

describe('/etc/hosts', () => {
  it('gets exactly one line of ours, and keeps the rest', () => {
    const once = hostsWith('one', '10.0.0.1 db\n')
    expect(once).toBe('127.0.0.1 localhost\n::1 localhost\n10.0.0.1 db\n127.0.1.1 one # capsule\n')
    expect(hostsWith('two', once)).toBe(once.replace('one #', 'two #'))
  })
})
