import { describe, expect, it } from 'vitest'
import { tagsIn } from './host-tags.js'

describe('tagsIn', () => {
  it('takes what people put between words, and each tag once', () => {
    expect(tagsIn(' gpu  eu,gpu, disk=nvme ')).toEqual(['gpu', 'eu', 'disk=nvme'])
    expect(tagsIn(' , ')).toEqual([])
  })
})
