import { describe, expect, it } from 'vitest'
import type { Sent } from '../../notify/index.js'
import type { DeliveryRow } from '../../store/schema.js'
import { sendBatch } from './turn.js'

function row(seq: number, lane: string, attempts = 0): DeliveryRow {
  return {
    ...{ seq, id: `id-${seq}`, channel_id: 'ch-1', type: 'member.role', resource_id: lane, lane, at: new Date(0) },
    ...{ data: {}, state: 'pending', attempts, queued_at: new Date(0), ended_at: null },
    ...{ reason: null, request: null, answer: null },
  }
}
const sent = (verdict: Sent['verdict']): Sent => ({
  verdict,
  request: { method: 'POST', url: '', headers: {}, body: '' },
  answer: undefined,
  durationMs: 1,
  refusal: undefined,
})
const delivered = sent({ kind: 'delivered' })
const later = sent({ kind: 'later', reason: 'down', isRate: false })

describe.each([1, 4])('a batch, %s at a time', (concurrency) => {
  const { signal } = new AbortController()

  it('begins what has failed before when all else is through, however few places are taken', async () => {
    const begun: number[] = []
    const ended: number[] = []
    const send = async ({ seq }: DeliveryRow): Promise<Sent> => {
      // What has failed fails at once: begun beside others it would end the batch before them.
      if (seq < 3) expect(ended).toEqual([3, 4, 5, 6])
      begun.push(seq)
      await new Promise(setImmediate)
      ended.push(seq)
      return seq < 3 ? later : delivered
    }
    const rows = [row(1, 'bad', 2), row(2, 'worse', 1), row(3, 'a'), row(4, 'a'), row(5, 'a'), row(6, 'a')]
    const { records, delivered: count, rest } = await sendBatch(rows, { concurrency, send, signal })
    expect(count).toBe(4)
    expect(rest).toMatchObject({ kind: 'later' })
    expect(begun.slice(0, 4)).toEqual([3, 4, 5, 6])
    expect(records.length).toBe(begun.length)
  })

  it('begins nothing that has failed before once something else has failed', async () => {
    const begun: number[] = []
    const send = async ({ seq }: DeliveryRow): Promise<Sent> => {
      begun.push(seq)
      return later
    }
    await sendBatch([row(1, 'bad', 1), row(2, 'a'), row(3, 'a')], { concurrency, send, signal })
    expect(begun).toEqual([2])
  })
})
