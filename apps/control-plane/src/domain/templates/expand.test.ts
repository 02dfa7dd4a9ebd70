// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of steps
import { MAX_WORD_LENGTH } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { environmentOf, expandValues } from './expand.js'

const state = { user: 'user', cwd: '/', envs: {} }
const guest = { answer: async () => Buffer.from(`PATH=/bin\0KIB=${'k'.repeat(1024)}\0BAD=\xff\0`, 'latin1') }

describe('values of variables', () => {
  it('have those of the guest in their place', async () => {
    const values = { A: '/opt:$PATH', B: '\\$PATH ${NONE}', C: 'plain' }
    expect(await expandValues(guest, state, values)).toEqual({ A: '/opt:/bin', B: '$PATH ${NONE}', C: 'plain' })
    await expect(expandValues(guest, state, { A: '$BAD' })).rejects.toThrow('BAD of the template is not UTF-8')
  })

  it('do not grow without an end', async () => {
    const most = MAX_WORD_LENGTH / 1024
    const { A } = await expandValues(guest, state, { A: '$KIB'.repeat(most) })
    expect(A).toHaveLength(MAX_WORD_LENGTH)
    await expect(expandValues(guest, state, { A: '$KIB'.repeat(60_000) })).rejects.toThrow(
      'ENV: A would have more than',
    )
  })
})

it('knows nothing that the guest does not have', async () => {
  const known = await environmentOf(guest, state)
  expect([known('PATH'), known('NONE'), known('PATH')]).toEqual(['/bin', undefined, '/bin'])
})
