import { expect, it } from 'vitest'
import { ExportTurns } from './export-turns.js'

const refused = expect.objectContaining({ code: 'limit_exceeded', details: { retryAfterSec: 10 } })

it('four exports are under way, and who comes then is told when to try again', () => {
  const turns = new ExportTurns()
  const { signal } = new AbortController()
  const [first] = Array.from({ length: 4 }, () => turns.take(signal))
  expect(() => turns.take(signal)).toThrow(refused)
  first?.[Symbol.dispose]()
  first?.[Symbol.dispose]()
  turns.take(signal)
  expect(() => turns.take(signal)).toThrow(refused)
})

it('an export whose caller leaves takes no place any more, and gives it back once', () => {
  const turns = new ExportTurns()
  const [staying, leaving] = [new AbortController(), new AbortController()]
  const left = turns.take(leaving.signal)
  for (let at = 0; at < 3; at++) turns.take(staying.signal)
  leaving.abort()
  turns.take(staying.signal)
  left[Symbol.dispose]()
  expect(() => turns.take(staying.signal)).toThrow(refused)
})
