import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'

const { api } = usePlatform()
/** Copies of one snapshot, made at the same time. */
let copies: TestCapsule[]

beforeAll(async () => {
  copies = await Promise.all([1, 2, 3].map(() => api.create()))
})
afterAll(async () => {
  await Promise.all(copies.map((capsule) => capsule.destroy()))
})

async function fromEach(line: string): Promise<string[]> {
  return await Promise.all(copies.map((capsule) => capsule.text(line)))
}

describe('copies of one snapshot', () => {
  it.each([
    ['machine ids', 'cat /etc/machine-id'],
    ['host names', 'hostname'],
    ['bytes of the kernel', 'head -c 32 /dev/urandom | base64'],
    ['UUIDs', 'cat /proc/sys/kernel/random/uuid'],
    ['numbers in Python', `python3 -c 'import random, secrets; print(random.random(), secrets.token_hex())'`],
    ['temporary names', 'mktemp -u'],
  ])('have different %s', async (_, line) => {
    const found = await fromEach(line)
    for (const one of found) expect(one).toMatch(/\S/)
    expect(new Set(found).size).toBe(copies.length)
  })

  it('know their host names', async () => {
    const names = await fromEach('hostname; getent hosts "$(hostname)"')
    for (const [index, capsule] of copies.entries()) expect(names[index]).toMatch(new RegExp(`^${capsule.id}\n`))
  })

  it('have the right time, however old the snapshot is', async () => {
    for (const capsule of copies) {
      const before = Date.now()
      const guest = Number(await capsule.text('date +%s%3N'))
      const after = Date.now()
      expect(guest).toBeGreaterThanOrEqual(before - 1000)
      expect(guest).toBeLessThanOrEqual(after + 1000)
    }
  })

  it('do not see what another one writes', async () => {
    await copies[0]?.text('echo mine > /root/mine; echo mine > /dev/shm/mine')
    expect(await copies[1]?.text('ls /root/mine /dev/shm/mine 2>&1 || true')).not.toMatch(/^\/root\/mine$/m)
  })
})
