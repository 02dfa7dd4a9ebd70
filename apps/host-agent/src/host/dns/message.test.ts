import { describe, expect, it } from 'vitest'
import { answeredAddresses } from './message.js'

const header = (questions: number, answers: number): number[] => [
  0,
  1,
  0x81,
  0x80,
  0,
  questions,
  0,
  answers,
  0,
  0,
  0,
  0,
]
const question = [1, 0x61, 0, 0, 1, 0, 1]
const record = (type: number, data: readonly number[], bytes = data.length): number[] => [
  ...[0xc0, 12, 0, type, 0, 1, 0, 0, 0, 9, 0, bytes],
  ...data,
]
const address = record(1, [192, 0, 2, 7])

describe('the addresses in an answer', () => {
  it('are those of its records, among others', () => {
    const sixth = record(
      28,
      Array.from({ length: 16 }, () => 1),
    )
    const answer = [...header(1, 3), ...question, ...sixth, ...address, ...record(1, [192, 0, 2, 8])]
    expect(answeredAddresses(Buffer.from(answer))).toEqual(['192.0.2.7', '192.0.2.8'])
    expect(answeredAddresses(Buffer.from([...header(0, 1), 0, ...address.slice(2)]))).toEqual(['192.0.2.7'])
  })

  it('are none of what is cut, damaged or says more than it has', () => {
    const whole = [...header(1, 1), ...question, ...address]
    for (let length = 0; length < whole.length; length += 1) {
      expect(answeredAddresses(Buffer.from(whole.slice(0, length)))).toEqual([])
    }
    expect(answeredAddresses(Buffer.from([...header(1, 9), ...question, ...address]))).toEqual(['192.0.2.7'])
    expect(answeredAddresses(Buffer.from([...header(1, 1), ...question, ...record(1, [1, 2, 3])]))).toEqual([])
    expect(answeredAddresses(Buffer.from([...header(2, 1), ...question, ...question, ...address]))).toEqual([])
    expect(answeredAddresses(Buffer.from([...header(1, 1), ...question, 0x80, ...address]))).toEqual([])
  })
})
