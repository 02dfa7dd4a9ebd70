import type { Capsule } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { TestCapsule, usePlatform } from '../harness/api.js'

const { api } = usePlatform()

describe('creating a capsule', () => {
  it('gives back every field that was asked for, and what the host made of it', async () => {
    await using capsule = await api.create({
      name: 'all fields',
      labels: { purpose: 'e2e', 'with space': 'ü' },
      envs: { GREETING: 'hello' },
      vcpus: 1,
      memory_mb: 512,
      disk_size_mb: 5120,
      timeout_sec: 3600,
      user: 'user',
      cwd: '/tmp',
      egress: { internet: false, allow: ['192.0.2.0/24'], deny: ['198.51.100.7'] },
    })
    expect(await capsule.get()).toMatchObject({
      id: expect.stringMatching(/^cl-[0-9a-z]{25}$/),
      name: 'all fields',
      status: 'running',
      state: 'running',
      template: 'minimal',
      labels: { purpose: 'e2e', 'with space': 'ü' },
      vcpus: 1,
      memory_mb: 512,
      disk_size_mb: 5120,
      timeout_sec: 3600,
      egress: { internet: false, allow: ['192.0.2.0/24'], deny: ['198.51.100.7'] },
      engine: expect.stringMatching(/^(qemu-tcg|qemu-kvm|firecracker)$/),
      started_at: expect.stringMatching(/Z$/),
      metadata: { engine_version: expect.stringMatching(/./), kernel_version: expect.stringMatching(/./) },
    })
    const { stdout } = await capsule.sh('echo "$GREETING from $(whoami) in $(pwd)"')
    expect(stdout).toBe('hello from user in /tmp\n')
  })

  it('takes the sizes into the guest', async () => {
    await using capsule = await api.create({ vcpus: 2, memory_mb: 320, disk_size_mb: 1024 })
    expect(capsule.made).toMatchObject({ vcpus: 2, memory_mb: 320, disk_size_mb: 1024 })
    expect(await capsule.text('nproc')).toBe('2')
    const memoryMib = Number(await capsule.text("awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo"))
    expect(memoryMib).toBeGreaterThan(230)
    expect(memoryMib).toBeLessThanOrEqual(320)
    const diskMib = Number(await capsule.text('df -m --output=size / | tail -1'))
    expect(diskMib).toBeGreaterThan(850)
    expect(diskMib).toBeLessThanOrEqual(1024)
  })

  it('boots the first capsule of a shape, restores the next ones, and says so with its steps', async () => {
    // A size nobody used before, also not in an earlier run with the same directory.
    const memory_mb = 260 + Math.floor(Math.random() * 200)
    await using cold = await api.create({ memory_mb, disk_size_mb: 700 })
    await using next = await api.create({ memory_mb, disk_size_mb: 700 })
    expect(cold.made.path).toBe('cold')
    expect(cold.made.timings?.map(({ step }) => step)).toEqual(
      expect.arrayContaining(['boot', 'warm', 'snapshot', 'identify']),
    )
    expect(['restore', 'hot']).toContain(next.made.path)
    for (const { made } of [cold, next]) {
      for (const { ms } of made.timings ?? []) expect(ms).toBeGreaterThanOrEqual(0)
    }
    expect((await next.get()).timings).toBeUndefined()
    expect(await next.text('echo works')).toBe('works')
  })

  it('gives several callers at once a capsule each', async () => {
    const made = await Promise.all(Array.from({ length: 4 }, () => api.create()))
    try {
      expect(new Set(made.map(({ id }) => id)).size).toBe(4)
      const ids = await Promise.all(made.map((capsule) => capsule.text('cat /etc/machine-id')))
      expect(new Set(ids).size).toBe(4)
    } finally {
      await Promise.all(made.map((capsule) => capsule.destroy()))
    }
  })

  it('makes one capsule for one Idempotency-Key, and refuses the key for another request', async () => {
    const headers = { 'Idempotency-Key': `e2e-${crypto.randomUUID()}` }
    const json = { name: 'once' }
    const query = { wait_sec: '60' }
    const answers = await Promise.all(
      [1, 2, 3].map(() => api.json<Capsule>('POST', '/v1/capsules', { headers, json, query })),
    )
    await using capsule = new TestCapsule(api, answers[0] as Capsule) // three were asked for
    expect(new Set(answers.map(({ id }) => id)).size).toBe(1)
    const again = await api.json<Capsule>('POST', '/v1/capsules', { headers, json, query })
    expect(again.id).toBe(capsule.id)
    expect(await api.refusal('POST', '/v1/capsules', { headers, json: { name: 'twice' } })).toMatchObject({
      status: 409,
      code: 'idempotency_mismatch',
    })
  })

  it('answers 404 for a template that does not exist', async () => {
    expect(await api.refusal('POST', '/v1/capsules', { json: { template: 'no-such-thing' } })).toMatchObject({
      status: 404,
      code: 'template_not_found',
      message: expect.stringContaining('no-such-thing'),
    })
  })

  it.each([
    ['vcpus', 9, 'WRENN_MAX_VCPUS'],
    ['memory_mb', 16_385, 'WRENN_MAX_MEMORY_MB'],
    ['disk_size_mb', 102_401, 'WRENN_MAX_DISK_SIZE_MB'],
  ])('names the limit that %s is over', async (field, value, knob) => {
    expect(await api.refusal('POST', '/v1/capsules', { json: { [field]: value } })).toMatchObject({
      status: 400,
      code: 'invalid_request',
      message: expect.stringMatching(new RegExp(`${field}.*${value}.*${knob}`)),
    })
  })

  it.each([
    ['memory_mb', { memory_mb: 127 }],
    ['vcpus', { vcpus: 0 }],
    ['template', { template: '../etc' }],
    ['labels', { labels: { a: 'x'.repeat(257) } }],
    ['envs', { envs: { 'a=b': 'c' } }],
  ])('names %s when it cannot be', async (field, json) => {
    expect(await api.refusal('POST', '/v1/capsules', { json })).toMatchObject({
      status: 400,
      code: 'invalid_request',
      message: expect.stringContaining(field),
    })
  })

  it('lists the templates that exist', async () => {
    const templates = await api.json<{ name: string; type: string }[]>('GET', '/v1/snapshots')
    expect(templates).toContainEqual(expect.objectContaining({ name: 'minimal', type: 'base' }))
  })
})
