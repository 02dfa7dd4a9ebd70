import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { wrenn } from '../harness/platform.js'
import { openClient } from '../harness/sdk.js'

const { platform, api } = usePlatform()
const LOOK = 'cat /root/file; cat /dev/shm/memory 2>/dev/null; pgrep -cx sleep; echo $KIND $(hostname)'

/** A capsule with something on its disk and something in its memory alone. */
async function made(name: string): Promise<TestCapsule> {
  const capsule = await api.create({ name, envs: { KIND: 'kept' } })
  await capsule.background('sleep 1000')
  await capsule.text('echo disk > /root/file; echo memory > /dev/shm/memory')
  return capsule
}

/** As after an upgrade to an engine that no longer has the machine its states were saved on. */
async function makeForeign(...path: string[]): Promise<void> {
  const file = join(platform.dir, 'pool', 'capsules', ...path, 'manifest.json')
  const manifest = JSON.parse(await readFile(file, 'utf8'))
  await writeFile(file, JSON.stringify({ ...manifest, hardware: { ...manifest.hardware, machine: 'pc-q35-1.0' } }))
}

async function newestGeneration({ id }: TestCapsule): Promise<string> {
  const names = await readdir(join(platform.dir, 'pool', 'capsules', id))
  return String(Math.max(...names.filter((name) => /^\d+$/.test(name)).map(Number)))
}

describe('a capsule whose memory cannot be loaded', () => {
  it('says so, stays as it is, and starts from its disk over REST', async () => {
    await using capsule = await made('from-disk-rest')
    await capsule.pause()
    await makeForeign(capsule.id, await newestGeneration(capsule))
    const resume = `${capsule.path}/resume`
    const refused = await api.refusal('POST', resume, { query: { wait_sec: '120' } })
    expect(refused).toMatchObject({ status: 409, code: 'state_not_loadable' })
    expect(refused.message).toContain('pc-q35-1.0')
    expect(await capsule.get()).toMatchObject({ state: 'paused' })
    const unknown = await api.refusal('POST', resume, { json: { from: 'tape' } })
    expect(unknown).toMatchObject({ status: 400, code: 'invalid_request' })
    const started = await api.json('POST', resume, { json: { from: 'disk' }, query: { wait_sec: '120' } })
    expect(started).toMatchObject({
      id: capsule.id,
      state: 'running',
      notice: expect.stringContaining('from its disk'),
    })
    expect(await capsule.text(`${LOOK}; echo on > /root/file`)).toBe(`disk\n0\nkept ${capsule.id}`)
    await capsule.pause()
    await capsule.resume()
    expect(await capsule.text('cat /root/file')).toBe('on')
  })

  it('starts from its disk by the command line, and goes back to a checkpoint’s files by the SDK', async () => {
    await using capsule = await made('from-disk-cli')
    const { id: checkpointId } = await capsule.checkpoint('before')
    await capsule.text('echo later > /root/file')
    await capsule.pause()
    await makeForeign(capsule.id, await newestGeneration(capsule))
    await makeForeign(capsule.id, 'checkpoints', checkpointId)
    const refused = await wrenn(platform, ['capsule', 'resume', capsule.id])
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/--from disk|from.*disk/) })
    const resumed = await wrenn(platform, ['capsule', 'resume', capsule.id, '--from', 'disk'])
    expect(resumed).toMatchObject({ code: 0 })
    expect(await capsule.text(LOOK)).toBe(`later\n0\nkept ${capsule.id}`)
    const rolledBack = (await openClient(platform)).capsules.get(capsule.id).then(async (found) => {
      await expect(found.rollback('before')).rejects.toMatchObject({ code: 'state_not_loadable' })
      return await found.rollback('before', { from: 'disk' })
    })
    expect(await rolledBack).toMatchObject({ state: 'running' })
    expect(await capsule.text(LOOK)).toBe(`disk\n0\nkept ${capsule.id}`)
  })
})
