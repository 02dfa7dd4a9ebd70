import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../testing/eventually.js'
import { DiskBudget } from './disk-budget.js'
import type { OutputKind } from './output-chunk.js'
import { OutputLog } from './output-log.js'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'output-log-test-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

interface Piece {
  readonly kind: OutputKind
  readonly data: Buffer
}

async function readAll(log: OutputLog, from: number): Promise<{ readonly bytes: Buffer; readonly kinds: string }> {
  const parts: Buffer[] = []
  let kinds = ''
  for (let offset = from; offset < log.end; ) {
    const chunks = [log.readMemory(offset) ?? (await log.readDisk(offset))].flat()
    if (chunks.length === 0) throw new Error(`nothing at ${offset}`)
    for (const chunk of chunks) {
      expect(chunk.offset).toBe(offset)
      parts.push(chunk.data)
      kinds += (chunk.kind[3] ?? 'p').repeat(chunk.data.length)
      offset += chunk.data.length
    }
  }
  return { bytes: Buffer.concat(parts), kinds }
}

describe('OutputLog', () => {
  it('gives back every byte with its kind from any offset, from memory and disk', async () => {
    const piece = fc.record({
      kind: fc.constantFrom<OutputKind>('stdout', 'stderr', 'pty'),
      data: fc
        .oneof(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.uint8Array({ minLength: 3000, maxLength: 9000 }))
        .map((each) => Buffer.from(each)),
    })
    let run = 0
    const property = fc.asyncProperty(fc.array(piece, { maxLength: 40 }), fc.nat(), async (pieces: Piece[], at) => {
      const log = new OutputLog(join(dir, String(run++)), { memoryBytes: 8_000, diskBytes: 1e9 }, () => {})
      for (const { kind, data } of pieces) log.append(kind, data)
      const whole = Buffer.concat(pieces.map((each) => each.data))
      const kinds = pieces.map((each) => (each.kind[3] ?? 'p').repeat(each.data.length)).join('')
      const from = whole.length === 0 ? 0 : at % whole.length
      const read = await readAll(log, from)
      expect(read.bytes.equals(whole.subarray(from))).toBe(true)
      expect(read.kinds).toBe(kinds.slice(from))
      await eventually('the log to settle', () => !log.isCongested)
      log.dispose()
    })
    await fc.assert(property, { numRuns: 40 })
  })

  it('keeps memory within its limit and drops the oldest beyond the disk limit', async () => {
    const mib = 1024 * 1024
    const log = new OutputLog(join(dir, 'capped'), { memoryBytes: mib, diskBytes: 32 * mib }, () => {})
    for (let i = 0; i < 80; i++) {
      log.append('stdout', Buffer.alloc(mib, i))
      await eventually('the disk', () => !log.isCongested)
    }
    expect(log.memoryBytes).toBeLessThanOrEqual(2 * mib)
    expect(log.start).toBeGreaterThan(0)
    expect(log.start).toBeGreaterThanOrEqual(80 * mib - 50 * mib)
    expect(await log.readDisk(0)).toEqual([])
    expect(log.nextKept(0)).toBe(log.start)
    const { bytes } = await readAll(log, log.start)
    expect(bytes.length).toBe(log.end - log.start)
    log.dispose()
  })

  it('takes together with others no more disk than they may: what ended goes first, then its own oldest', async () => {
    const mib = 1024 * 1024
    const limits = { memoryBytes: mib, diskBytes: 1e9 }
    const logs: OutputLog[] = []
    const ended: OutputLog[] = []
    const budget = new DiskBudget(() => ended.some((log) => log.dropDisk()), 64 * mib)
    const fill = async (log: OutputLog): Promise<void> => {
      logs.push(log)
      for (let piece = 0; piece < 60; piece++) {
        log.append('stdout', Buffer.alloc(mib))
        await log.flush()
      }
    }
    const [first, second, third] = ['a', 'b', 'c'].map(
      (name) => new OutputLog(join(dir, name), limits, () => {}, budget),
    )
    if (!first || !second || !third) throw new Error('three logs were made')
    await fill(first)
    ended.push(first)
    await fill(second)
    expect([first.start > 55 * mib, second.start]).toEqual([true, 0])
    await fill(third)
    expect(third.start).toBeGreaterThan(0)
    expect(third.end - third.start).toBeLessThan(40 * mib)
    for (const log of logs) log.dispose()
    expect(budget.isExceeded(dir)).toBe(false)
  })
})
