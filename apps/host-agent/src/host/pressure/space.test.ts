import { AppError } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { requireSpace } from './space.js'

const MIB = 2 ** 20
const pool = { path: '/pool', usage: async () => ({ totalBytes: 100_000 * MIB, freeBytes: 3000 * MIB }) }

describe('the check for room in the pool', () => {
  it('passes what fits beside the reserve', async () => {
    await requireSpace(pool, 1976 * MIB)
  })

  it('says how much is free and needed and what would free it', async () => {
    const refused = await requireSpace(pool, 2000 * MIB, { purpose: 'The checkpoint', freeableBytes: 500 * MIB }).catch(
      (error: unknown) => AppError.from(error),
    )
    expect(refused).toMatchObject({ code: 'disk_full', details: { freeBytes: 3000 * MIB, neededBytes: 2000 * MIB } })
    expect(refused?.message).toBe(
      'The checkpoint needs 2000 MiB of the pool /pool; 3000 MiB are free, of which 1024 MiB are kept in reserve. Delete checkpoints, snapshots or paused capsules (up to 500 MiB), or give the pool more disk.',
    )
  })
})
