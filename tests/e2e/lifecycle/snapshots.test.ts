import type { Template } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { readWitness, STOP_FILE, WITNESS } from '../harness/counting.js'
import { outputOf, Stream } from '../harness/stream.js'

const { platform, api } = usePlatform()
const query = { wait_sec: '120' }
let source: TestCapsule

beforeAll(async () => {
  source = await api.create({ name: 'tools', memory_mb: 512, envs: { COLOUR: 'green' } })
  await source.background('', { cmd: 'python3', args: ['-c', WITNESS], tag: 'witness' })
  await source.text('echo tool > /root/tool; echo warm > /dev/shm/warm')
  await using witness = await Stream.open(platform, `${source.path}/processes/witness/stream?from_offset=0`)
  await witness.until((frame) => outputOf([frame]).includes('\n'))
})
afterAll(async () => {
  await source?.destroy()
})

const make = (name: string, capsule = source): Promise<Template> =>
  api.json<Template>('POST', '/v1/snapshots', { json: { capsule_id: capsule.id, name }, query })
const remove = (name: string): Promise<void> => api.json('DELETE', `/v1/snapshots/${name}`)
const list = (): Promise<Template[]> => api.json<Template[]>('GET', '/v1/snapshots', { query: { type: 'snapshot' } })

async function hashIn(capsule: TestCapsule): Promise<string> {
  await capsule.text(`touch ${STOP_FILE}`)
  await using stream = await Stream.open(platform, `${capsule.path}/processes/witness/stream?from_offset=0`)
  return readWitness((await stream.untilExit()).output.toString()).hash
}

describe('a snapshot', () => {
  it('is a template from which capsules start warm, with its processes, memory and files', async () => {
    const made = await make('tools-1')
    expect(made).toMatchObject({ name: 'tools-1', type: 'snapshot', platform: false, vcpus: 1, memory_mb: 512 })
    expect(made.size_bytes).toBeGreaterThanOrEqual(0)
    expect(await list()).toMatchObject([{ name: 'tools-1', snapshot_id: made.snapshot_id }])
    expect((await source.get()).state).toBe('running')
    await using first = await api.create({ template: 'tools-1', envs: { SEED: '7' } })
    await using second = await api.create({ template: 'tools-1' })
    expect(first.made).toMatchObject({ template: 'tools-1', snapshot_id: made.snapshot_id, memory_mb: 512 })
    expect(await first.text('cat /root/tool /dev/shm/warm; echo $SEED; hostname')).toBe(`tool\nwarm\n7\n${first.id}`)
    const ids = await Promise.all([first, second, source].map((one) => one.text('cat /etc/machine-id')))
    expect(new Set(ids).size).toBe(3)
    const random = await Promise.all([first, second].map((one) => one.text('head -c 16 /dev/urandom | od -An -tx1')))
    expect(new Set(random).size).toBe(2)
    expect(await hashIn(first)).toBe(await hashIn(second))
    await remove('tools-1')
    expect(await list()).toEqual([])
    expect(await second.text('cat /root/tool')).toBe('tool')
    const gone = await api.refusal('POST', '/v1/capsules', { json: { template: 'tools-1' } })
    expect(gone).toMatchObject({ status: 404, code: 'template_not_found' })
  })

  it('may be made of a paused capsule, which stays paused', async () => {
    await source.pause()
    await make('tools-2')
    expect((await source.get()).state).toBe('paused')
    await using copy = await api.create({ template: 'tools-2' })
    expect(await copy.text('cat /root/tool')).toBe('tool')
    await source.resume()
    expect(await hashIn(copy)).toBe(await hashIn(source))
    await remove('tools-2')
  })

  it('has a name that nothing else has', async () => {
    const refusal = (name: string) =>
      api.refusal('POST', '/v1/snapshots', { json: { capsule_id: source.id, name }, query })
    expect(await refusal('minimal')).toMatchObject({ status: 409, code: 'name_reserved' })
    expect(await refusal('a/b')).toMatchObject({ status: 400, code: 'invalid_request' })
    await make('tools-3')
    expect(await refusal('tools-3')).toMatchObject({ status: 409, code: 'template_name_taken' })
    await remove('tools-3')
    await make('tools-3')
    await remove('tools-3')
    expect(await api.refusal('DELETE', '/v1/snapshots/tools-3')).toMatchObject({ code: 'template_not_found' })
    expect(await api.refusal('DELETE', '/v1/snapshots/minimal')).toMatchObject({ status: 403, code: 'forbidden' })
    const unnamed = await api.json<Template>('POST', '/v1/snapshots', { json: { sandbox_id: source.id }, query })
    expect(unnamed.name).toMatch(/^template-[0-9a-f]{8}$/)
    await remove(unnamed.name)
  })

  it('fixes the shape of what starts from it', async () => {
    await make('tools-4')
    for (const [field, value] of [
      ['memory_mb', 1024],
      ['vcpus', 2],
      ['disk_size_mb', 10_240],
    ] as const) {
      const refused = await api.refusal('POST', '/v1/capsules', { json: { template: 'tools-4', [field]: value } })
      expect(refused).toMatchObject({
        status: 400,
        message: expect.stringMatching(`^${field} of the snapshot tools-4`),
      })
    }
    expect((await api.list()).map(({ id }) => id)).toEqual([source.id])
    await remove('tools-4')
  })
})
