import { create } from '@bufbuild/protobuf'
import { capsuleIds, snapshotIds } from '@wrenn/base'
import { CreateCapsuleRequestSchema } from '@wrenn/protocol/host'
import { describe, expect, it } from 'vitest'
import { parseCreate } from './convert.js'

const request = (memoryMib: number, snapshotId = '') =>
  create(CreateCapsuleRequestSchema, {
    capsuleId: capsuleIds.create(),
    template: 'minimal',
    vcpus: 1,
    memoryMib,
    diskSizeMib: 1024,
    snapshotId,
  })

describe('parseCreate', () => {
  it('refuses memory that no guest comes up with, and names the least', () => {
    expect(() => parseCreate(request(127))).toThrow('memory_mib is 127; a guest needs at least 128.')
    expect(parseCreate(request(128)).memoryMib).toBe(128)
  })

  it('takes a snapshot of any size', () => {
    expect(parseCreate(request(96, snapshotIds.create())).memoryMib).toBe(96)
    expect(() => parseCreate(request(0, snapshotIds.create()))).toThrow('memory_mib must be greater than 0.')
  })
})
