import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { readWitness, STOP_FILE, WITNESS } from '../harness/counting.js'
import { wrenn } from '../harness/platform.js'
import { openClient } from '../harness/sdk.js'
import { outputOf, Stream } from '../harness/stream.js'
import { eventually } from '../harness/wait.js'

const { platform, api } = usePlatform()
const hasStore = platform.env.WRENN_OBJECT_STORE !== undefined
if (!hasStore) process.stdout.write('Hibernation is left out: radosgw is not installed, which stores it in tests.\n')

describe.runIf(hasStore)('a capsule that hibernates', () => {
  let capsule: TestCapsule
  beforeAll(async () => {
    capsule = await api.create({ name: 'hibernate', auto_resume: true })
  })

  /** Neither its files nor a record of it are on the host. */
  const untilFreed = async (): Promise<void> => {
    const left = ['pool/capsules', 'journal'].map((folder) => join(platform.dir, folder, capsule.id))
    const isFreed = (): boolean => !left.some((path) => existsSync(path) || existsSync(`${path}.json`))
    await eventually('the host to keep nothing of it', () => (isFreed() ? true : undefined))
  }

  it('leaves nothing on its host, and goes on with its memory, its files and a process that counts', async () => {
    const hashes = 'sha256sum /dev/shm/nonce /root/file'
    const { tag } = await capsule.background('', { cmd: 'python3', args: ['-c', WITNESS] })
    const before = await capsule.text(
      `head -c 3000000 /dev/urandom > /dev/shm/nonce; head -c 9000000 /dev/urandom > /root/file; ${hashes}`,
    )
    await using witness = await Stream.open(platform, `${capsule.path}/processes/${tag}/stream?from_offset=0`)
    await witness.until((frame) => outputOf([frame]).length > 0)
    const { capsules } = await openClient(platform)
    expect(await (await capsules.get(capsule.id)).hibernate()).toMatchObject({ state: 'hibernated', durable: true })
    expect(await capsule.get()).not.toHaveProperty('host_id')
    await untilFreed()
    expect(await capsule.text(hashes)).toBe(before) // wakes it
    await capsule.text(`touch ${STOP_FILE}`)
    await witness.untilExit()
    await using all = await Stream.open(platform, `${capsule.path}/processes/${tag}/stream?from_offset=0`)
    readWitness((await all.untilExit()).output.toString())
  })

  it('does so again by the command line, and is destroyed while no host has it', async () => {
    const { code, stdout, stderr } = await wrenn(platform, ['capsule', 'hibernate', capsule.id])
    expect({ code, stdout, stderr }).toMatchObject({ code: 0, stdout: expect.stringMatching(/^Hibernated in .+\.\n$/) })
    await untilFreed()
    await capsule.destroy()
    expect(await capsule.get()).toMatchObject({ state: 'stopped' })
  })
})
