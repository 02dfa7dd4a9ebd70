import { describe, expect, it } from 'vitest'
import { eventOf } from './events.js'

const event = (type: string, content: Readonly<Record<string, unknown>>) =>
  eventOf({ type, content, parentId: undefined })

describe('what a client is told of a message of the kernel', () => {
  it('names the formats that clients know, and keeps the names of the others', () => {
    const data = {
      'text/plain': '<Figure>',
      'image/png': 'AAAA',
      'e2b/chart': { type: 'line' },
      'e2b/df': { a: [1] },
      'application/x-own': { b: 2 },
    }
    expect(event('display_data', { data })).toEqual({
      type: 'result',
      is_main_result: false,
      text: '<Figure>',
      png: 'AAAA',
      chart: { type: 'line' },
      data: { a: [1] },
      'application/x-own': { b: 2 },
    })
  })

  it('tells the value of the last line apart from what was displayed, and gives a string as it is', () => {
    expect(event('execute_result', { data: { 'text/plain': "'a text'" } })).toEqual({
      type: 'result',
      is_main_result: true,
      text: 'a text',
    })
    expect(event('execute_result', { data: { 'text/plain': "'" } })).toMatchObject({ text: "'" })
    expect(event('execute_result', { data: { 'text/html': ['<b>', 'bold</b>'] } })).toMatchObject({
      html: '<b>bold</b>',
    })
  })

  it('lets no format take the place of the fields of its own', () => {
    const data = { type: 'end_of_execution', is_main_result: true, 'text/plain': 'x' }
    expect(event('display_data', { data })).toEqual({ type: 'result', is_main_result: false, text: 'x' })
  })

  it('tells output by its stream, errors with their traceback, and the count', () => {
    expect(event('stream', { name: 'stderr', text: 'oh\n' })).toEqual({ type: 'stderr', text: 'oh\n' })
    expect(event('error', { ename: 'E', evalue: 'v', traceback: ['a', 'b'] })).toEqual({
      type: 'error',
      name: 'E',
      value: 'v',
      traceback: 'a\nb',
    })
    expect(event('execute_input', { execution_count: 3 })).toEqual({ type: 'number_of_executions', execution_count: 3 })
    expect(event('clear_output', {})).toBeUndefined()
  })
})
