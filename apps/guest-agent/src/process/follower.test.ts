import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type FollowedSession, Follower, type SessionEnd } from './follower.js'
import { OutputLog } from './output-log.js'

const IDLE_MS = 20_000
const exited: SessionEnd = {
  exitCode: 0,
  exited: true,
  status: 'exit status 0',
  error: undefined,
  signal: undefined,
  timedOut: false,
  oomKilled: false,
}

/** A session that writes when the test says so. */
class ScriptedSession implements FollowedSession {
  readonly log: OutputLog
  readonly #followers: Follower[] = []
  end: SessionEnd | undefined

  constructor(directory: string) {
    this.log = new OutputLog(directory, { memoryBytes: 64, diskBytes: 1e9 }, () => {})
  }

  follow(offset: number): Follower {
    const follower = new Follower(this, offset, () => {})
    this.#followers.push(follower)
    return follower
  }

  unfollow(): void {}

  write(text: string): void {
    this.log.append('stdout', Buffer.from(text))
    for (const follower of this.#followers) follower.wake()
  }

  finish(): void {
    this.end = exited
    for (const follower of this.#followers) follower.wake()
  }
}

/** Everything a follower gets, each chunk checked to begin where the one before ended. */
async function readAll(follower: Follower, from: number): Promise<string> {
  let text = ''
  for (let next = from; ; ) {
    const item = await follower.next(IDLE_MS)
    if (item.type === 'end') return text
    if (item.type !== 'chunk') throw new Error(`Not output but ${item.type}`)
    expect(item.chunk.offset).toBe(next)
    text += item.chunk.data.toString()
    next += item.chunk.data.length
  }
}

let dir: string
let session: ScriptedSession
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'follower-test-'))
  session = new ScriptedSession(join(dir, 'log'))
})
afterEach(() => {
  session.log.dispose()
  rmSync(dir, { recursive: true, force: true })
})

describe('a follower ahead of the output', () => {
  it('waits for its offset and gets nothing before it', async () => {
    const rest = readAll(session.follow(4), 4)
    for (const text of ['01', '2', '3456', '789']) session.write(text)
    session.finish()
    expect(await rest).toBe('456789')
  })

  it('is idle, not served, while the output is short of its offset', async () => {
    const follower = session.follow(4)
    session.write('0123')
    expect(await follower.next(1)).toEqual({ type: 'idle' })
    session.write('4')
    expect(await follower.next(IDLE_MS)).toMatchObject({ type: 'chunk', chunk: { offset: 4 } })
  })

  it('is told of the end when its offset never came', async () => {
    const next = session.follow(1_000).next(IDLE_MS)
    session.write('short')
    session.finish()
    expect(await next).toEqual({ type: 'end', end: exited, offset: 5 })
  })

  it('has nothing yet to read', () => {
    const follower = session.follow(1_000)
    session.write('0123456789')
    expect(follower.lag).toBeLessThan(0)
  })
})

describe('a follower', () => {
  it('gets exactly the bytes from its offset on, whenever it comes', async () => {
    const pieces = fc.array(fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 40 }), { maxLength: 12 })
    let run = 0
    const property = fc.asyncProperty(pieces, fc.nat(300), fc.nat(12), async (texts, from, at) => {
      const scripted = new ScriptedSession(join(dir, String(run++)))
      for (const text of texts.slice(0, at)) scripted.write(text)
      const rest = readAll(scripted.follow(from), from)
      for (const text of texts.slice(at)) scripted.write(text)
      scripted.finish()
      expect(await rest).toBe(texts.join('').slice(from))
      scripted.log.dispose()
    })
    await fc.assert(property)
  })
})
