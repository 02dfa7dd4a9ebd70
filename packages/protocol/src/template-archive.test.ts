import { describe, expect, it } from 'vitest'
import { readTemplateTail, TEMPLATE_TAIL_BYTES, templateLabel, templateSeal } from './template-archive.js'

const digest = new Uint8Array(32).map((_, at) => at)
const tail = new Uint8Array([...templateLabel('web'), ...templateSeal(digest)])

describe('the end of an archive of a template', () => {
  it('says what it is, and of what', () => {
    expect(tail).toHaveLength(TEMPLATE_TAIL_BYTES)
    expect(readTemplateTail(tail)).toEqual({ version: 1, name: 'web', digest })
    expect(readTemplateTail(new Uint8Array([0, 1, 2, 3, 4, ...tail]).subarray(5))?.name).toBe('web')
  })

  it('is none when it is another file, shorter, or of another format', () => {
    for (const bytes of [new Uint8Array(0), tail.subarray(1), new Uint8Array(TEMPLATE_TAIL_BYTES)])
      expect(readTemplateTail(bytes)).toBeUndefined()
    for (const at of [0, 4, 10, TEMPLATE_TAIL_BYTES - 40, TEMPLATE_TAIL_BYTES - 36]) {
      const damaged = tail.map((byte, index) => (index === at ? byte ^ 1 : byte))
      expect(readTemplateTail(damaged), String(at)).toBeUndefined()
    }
  })
})
