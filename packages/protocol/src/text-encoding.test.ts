import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { describe, expect, it } from 'vitest'
import { EntryInfoSchema } from './guest.js'

describe('text in messages', () => {
  it('comes as it went: a byte order mark in front, other scripts, no bytes at all', () => {
    for (const name of ['\ufeffmarked', '\ufeff', 'a\ufeffb', 'zürich 日本 😀', '']) {
      expect(fromBinary(EntryInfoSchema, toBinary(EntryInfoSchema, create(EntryInfoSchema, { name }))).name).toBe(name)
    }
  })
})
