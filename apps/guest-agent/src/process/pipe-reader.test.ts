import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { PipeReader } from './pipe-reader.js'

describe('a pipe reader', () => {
  let dir: string
  let seen: string

  /** A reader of a new pipe, and the end that is written to. */
  function openReader(): { reader: PipeReader; ours: number; theirs: number } {
    const path = join(dir, 'pipe')
    execFileSync('mkfifo', [path])
    const ours = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const theirs = openSync(path, constants.O_WRONLY)
    const take = (chunk: Buffer): void => {
      seen += chunk.toString()
    }
    return { reader: new PipeReader(ours, take, () => {}), ours, theirs }
  }

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'wrenn-pipe-'))
    seen = ''
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  it('drains what is in the pipe at once', () => {
    const { reader, theirs } = openReader()
    writeSync(theirs, 'last words')
    reader.drain()
    expect(seen).toBe('last words')
    closeSync(theirs)
    reader.close()
  })

  it('reads nothing through its old descriptor number once that belongs to somebody else', () => {
    const { reader, ours, theirs } = openReader()
    writeFileSync(join(dir, 'foreign'), 'a secret of another connection')
    reader.close()
    const foreign = openSync(join(dir, 'foreign'), 'r')
    expect(foreign).toBe(ours)
    reader.drain()
    expect(seen).toBe('')
    closeSync(foreign)
    closeSync(theirs)
  })
})
