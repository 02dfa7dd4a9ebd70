import { execFileSync } from 'node:child_process'
import fs, { closeSync, constants, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../testing/eventually.js'
import { PipeReader } from './pipe-reader.js'

const write = promisify(fs.write)

describe('a pipe reader', () => {
  let dir: string
  let seen: string
  let chunks: Buffer[]

  /** A reader of a new pipe, and the end that is written to. */
  function openReader(): { reader: PipeReader; ours: number; theirs: number } {
    const path = join(dir, 'pipe')
    execFileSync('mkfifo', [path])
    const ours = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const theirs = openSync(path, constants.O_WRONLY)
    const take = (chunk: Buffer): void => {
      seen += chunk.toString()
      chunks.push(chunk)
    }
    return { reader: new PipeReader(ours, take, () => {}), ours, theirs }
  }

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'wrenn-pipe-'))
    seen = ''
    chunks = []
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

  it('leaves what it has delivered alone, whatever others write to the pipe afterwards', async () => {
    const { reader, theirs } = openReader()
    const last = 'a'.repeat(40_000)
    for (const letter of ['first', 'second']) {
      const before = chunks.length
      writeSync(theirs, last)
      if (letter === 'first') await eventually('it to read', () => chunks.length > before)
      reader.drain()
    }
    reader.discard()
    // More than the pipe holds, so that all of it but the last has been read when the last was written.
    const others = Buffer.alloc(64 * 1024, 'b')
    for (let round = 0; round < 8; round++) await write(theirs, others)
    expect(chunks.every((chunk) => chunk.equals(Buffer.alloc(chunk.length, 'a')))).toBe(true)
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
