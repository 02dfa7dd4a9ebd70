import { accessSync, existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Capsule, ForkResult } from '@wrenn/protocol'
import { beforeAll, describe, expect, it } from 'vitest'
import { TestCapsule, usePlatform } from '../harness/api.js'
import { readWitness, STOP_FILE, WITNESS } from '../harness/counting.js'
import { killAndAwait } from '../harness/kill.js'
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

const canLoadLazily = hasStore && isOpenable('/dev/fuse')
if (hasStore && !canLoadLazily) process.stdout.write('Lazy resumes are left out: there is no /dev/fuse.\n')

function isOpenable(path: string): boolean {
  try {
    accessSync(path)
    return true
  } catch {
    return false
  }
}

describe.runIf(canLoadLazily)('a capsule that runs before its memory is whole', () => {
  const NONCE = '/dev/shm/nonce'
  let capsule: TestCapsule
  let before: string
  beforeAll(async () => {
    capsule = await api.create({ name: 'lazy' })
    before = await capsule.text(`head -c 60000000 /dev/urandom > ${NONCE}; sha256sum ${NONCE}`)
  })

  const isMounted = async (): Promise<boolean> =>
    (await readFile('/proc/self/mountinfo', 'utf8')).includes(`/capsules/${capsule.id}/`)
  const call = async (what: string) =>
    await api.json<Capsule>('POST', `${capsule.path}/${what}`, { json: {}, query: { wait_sec: '120' } })
  const wake = async (): Promise<void> => {
    await call('hibernate')
    const { lifecycle_timings: steps = [] } = await call('resume')
    expect(steps.map(({ step }) => step)).toContain('fetch_lazily')
    expect(await isMounted()).toBe(true)
  }

  it('has all of it, its host agent killed meanwhile, and is a plain durable state after a pause', async () => {
    await wake()
    await killAndAwait(platform, 'host-agent')
    expect(await capsule.text(`sha256sum ${NONCE}`)).toBe(before)
    await capsule.text('head -c 5000000 /dev/urandom > /dev/shm/more')
    await call('pause')
    await capsule.until('durable', ({ durable }) => durable === true)
    await eventually('its memory to be a plain file', async () => ((await isMounted()) ? undefined : true))
    await call('resume')
    expect(await capsule.text(`sha256sum ${NONCE}; stat -c %s /dev/shm/more`)).toBe(`${before}\n5000000`)
  })

  it('is copied as it is', async () => {
    await wake()
    await capsule.text('echo later > /dev/shm/later')
    const { capsules } = await api.json<ForkResult>('POST', `${capsule.path}/fork`, { json: { count: 1 } })
    const [copy] = capsules.map((made) => new TestCapsule(api, made))
    await using _ = copy
    expect(await copy?.text(`cat /dev/shm/later; sha256sum ${NONCE}`)).toBe(`later\n${before}`)
    expect(await capsule.text(`cat /dev/shm/later; sha256sum ${NONCE}`)).toBe(`later\n${before}`)
  })

  it('goes back to what the store has when what loads its memory is killed', async () => {
    await wake()
    await capsule.text('echo lost > /dev/shm/lost')
    const mark = join(platform.dir, 'pool/capsules', capsule.id, '0/mem.loading')
    process.kill(JSON.parse(await readFile(mark, 'utf8')).pid, 'SIGKILL')
    await capsule.untilState('error')
    await call('resume')
    expect((await capsule.untilState('running')).notice).toMatch(
      /^The capsule had ended before a state of it was saved here/,
    )
    expect(await capsule.text(`ls /dev/shm/lost 2>&1 || true; sha256sum ${NONCE}`)).toBe(
      `ls: cannot access '/dev/shm/lost': No such file or directory\n${before}`,
    )
    await capsule.destroy()
    expect(await isMounted()).toBe(false)
  })
})
