import { createHash } from 'node:crypto'
import { AUDIT_GENESIS, auditText } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { ChainVerifier, linesOf, type VerifiedExport } from './audit-verify.js'

/** Lines of a chain that begins after `firstPrevHash`. */
function chain(length: number, firstSeq = 1, firstPrevHash = AUDIT_GENESIS): string[] {
  let prevHash = firstPrevHash
  return Array.from({ length }, (_, index) => {
    const entry = {
      id: `log-${index}`,
      team_id: 'team-1',
      created_at: '2026-11-28T12:00:00.000Z',
      actor_type: 'system',
      action: 'capsule.create',
      resource_type: 'capsule',
      resource_id: `cl-${index}`,
      scope: 'team',
      outcome: 'success',
      details: { operation_id: `op-${index}` },
      seq: firstSeq + index,
      prev_hash: prevHash,
    }
    prevHash = createHash('sha256').update(auditText(entry)).digest('hex')
    return JSON.stringify({ ...entry, hash: prevHash })
  })
}

function verify(lines: readonly string[]): VerifiedExport | undefined {
  const verifier = new ChainVerifier()
  for (const line of lines) verifier.add(line)
  return verifier.result()
}

describe('an export', () => {
  it('that is whole says where it begins and ends', () => {
    const lines = chain(50)
    const lastHash = JSON.parse(lines.at(-1) ?? '').hash
    expect(verify(lines)).toEqual({ entries: 50, firstSeq: 1, lastSeq: 50, lastHash })
    expect(verify(lines.slice(20))).toEqual({ entries: 30, firstSeq: 21, lastSeq: 50, lastHash })
    expect(verify([])).toBeUndefined()
  })

  it('may have its fields in another order', () => {
    const [line = ''] = chain(1)
    const turned = Object.fromEntries(Object.entries(JSON.parse(line)).reverse())
    expect(verify([JSON.stringify(turned)])?.entries).toBe(1)
  })

  it('is broken where an entry was changed, left out, added, moved, or put together anew', () => {
    const lines = chain(5)
    const [first = '', second = '', third = '', ...rest] = lines
    const changed = second.replace('cl-1', 'cl-9')
    const forged = chain(1, 2)[0] ?? ''
    const cases: [string[], string][] = [
      [[first, changed, third], 'Line 2, place 2: it is not as it was written'],
      [[first, third, ...rest], 'Line 2, place 3: it comes after place 1'],
      [[first, first, second], 'Line 2, place 1: it comes after place 1'],
      [[first, third, second], 'Line 2, place 3'],
      [[first, forged, third], 'Line 2, place 2: it does not follow the entry before it'],
      [chain(2, 1, 'f'.repeat(64)), 'Line 1, place 1: it does not follow'],
      [[first, 'not json'], 'Line 2 is not an entry'],
      [[first, '{"seq":2}'], 'Line 2 is not an entry'],
      [[first, ''], 'Line 2 is not an entry'],
    ]
    for (const [broken, message] of cases) expect(() => verify(broken)).toThrow(message)
  })
})

describe('the lines of an export', () => {
  async function cut(...parts: string[]): Promise<string[]> {
    const lines: string[] = []
    async function* text(): AsyncGenerator<string> {
      yield* parts
    }
    for await (const some of linesOf(text())) lines.push(...some)
    return lines
  }

  it('are cut at line feeds alone, wherever its parts end', async () => {
    expect(await cut('{"a"', ':1}\n{"b":"\u2028"}', '\n', '{}\n')).toEqual(['{"a":1}', '{"b":"\u2028"}', '{}'])
    expect(await cut('{}\n{}')).toEqual(['{}', '{}'])
    expect(await cut()).toEqual([])
  })

  it('may end as those of other systems do', async () => {
    const [line = ''] = chain(1)
    const [withReturn = ''] = await cut(`${line}\r\n`)
    expect(verify([withReturn])?.entries).toBe(1)
  })
})
