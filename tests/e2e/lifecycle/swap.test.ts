import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'

const { api } = usePlatform()
const MIB = 1_048_576
const KEPT_MIB = 16

/** Holds random bytes, pushes them out to the swap, and tells their hash to who asks. */
const KEEPER = `
import hashlib, mmap, os
kept = mmap.mmap(-1, ${KEPT_MIB * MIB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
kept.write(os.urandom(len(kept)))
MADV_PAGEOUT = 21
for path in ('/run/ask', '/run/answer'): os.mkfifo(path)
while True:
    kept.madvise(MADV_PAGEOUT)
    with open('/run/ask') as ask: ask.read()
    with open('/run/answer', 'w') as answer: answer.write(hashlib.sha256(kept).hexdigest())
`
const ASK = 'echo > /run/ask; cat /run/answer'
/** KiB of the swap in use. */
const USED = `awk 'NR > 1 { print $4 }' /proc/swaps`
const UNTIL_SWAPPED = `until [ "$(${USED})" -ge ${(KEPT_MIB / 2) * 1024} ]; do sleep 0.1; done`

let capsule: TestCapsule
let hash: string

beforeAll(async () => {
  capsule = await api.create()
})
afterAll(async () => {
  await capsule?.destroy()
})

describe('a swap file', () => {
  it('is made in /swap as on any machine', async () => {
    const make = 'fallocate -l 128M /swap/file && chmod 600 /swap/file && mkswap -q /swap/file && swapon /swap/file'
    await capsule.text(make)
    expect(await capsule.text(`awk 'NR > 1 { print $1, $3 }' /proc/swaps`)).toBe(`/swap/file ${128 * 1024 - 4}`)
    await capsule.background('', { cmd: 'python3', args: ['-c', KEEPER], tag: 'keeper' })
    await capsule.text('until [ -p /run/answer ]; do sleep 0.1; done')
    await capsule.text(UNTIL_SWAPPED)
    hash = await capsule.text(ASK)
    expect(hash).toMatch(/^[0-9a-f]{64}$/)
  })

  it('keeps what is in it through pause and resume', async () => {
    await capsule.text(UNTIL_SWAPPED)
    await capsule.pause()
    await capsule.resume()
    expect(Number(await capsule.text(USED))).toBeGreaterThan(0)
    expect(await capsule.text(ASK)).toBe(hash)
  })

  it('is every fork’s own', async () => {
    await capsule.text(UNTIL_SWAPPED)
    const { copies } = await capsule.fork({ count: 2 })
    try {
      for (const copy of copies) expect(await copy.text(ASK)).toBe(hash)
      await copies[0]?.text('swapoff -a && head -c 64M /dev/urandom > /swap/file')
      expect(await copies[1]?.text(ASK)).toBe(hash)
    } finally {
      await Promise.all(copies.map((copy) => copy.destroy()))
    }
  })

  it('comes back with a checkpoint', async () => {
    await capsule.text(UNTIL_SWAPPED)
    await capsule.checkpoint('swapped')
    await capsule.text('swapoff -a && rm /swap/file && pkill python3')
    await capsule.rollback('swapped')
    expect(Number(await capsule.text(USED))).toBeGreaterThan(0)
    expect(await capsule.text(ASK)).toBe(hash)
  })
})
