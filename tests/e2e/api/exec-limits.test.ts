import { describe, expect, it } from 'vitest'
import { type TestCapsule, useCapsule, usePlatform } from '../harness/api.js'
import { Stream } from '../harness/stream.js'

const { platform, api } = usePlatform()
const capsule = useCapsule()

const large = (count: number, size: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`LARGE_${index}`, 'x'.repeat(size)]))
const refused = (json: object) => api.refusal('POST', `${capsule().path}/exec`, { json: { cmd: 'true', ...json } })

describe('what a program can be given', () => {
  it('has limits, and a request beyond them is refused by their names', async () => {
    const invalid = { status: 400, code: 'invalid_request' }
    expect(await refused({ envs: large(1, 3_000_000) })).toMatchObject({
      ...invalid,
      message: expect.stringContaining('LARGE_0'),
    })
    expect(await refused({ envs: large(30, 100_000) })).toMatchObject({
      ...invalid,
      message: expect.stringMatching(/environment.*2097152/),
    })
    const tooLarge = { status: 413, code: 'too_large' }
    const args = Array.from({ length: 30 }, () => 'x'.repeat(100_000))
    for (const options of [{}, { background: true }, { atomic: true }]) {
      const message = expect.stringMatching(/args have 30\d{5};/)
      expect(await refused({ args, ...options })).toMatchObject({ ...tooLarge, message })
    }
    expect(await refused({ args: ['x'.repeat(200_000)] })).toMatchObject({
      ...tooLarge,
      message: expect.stringContaining('argument 1 has 200000 bytes'),
    })
    expect(await api.refusal('POST', '/v1/capsules', { json: { envs: large(20, 100_000) } })).toMatchObject({
      ...invalid,
      message: expect.stringMatching(/environment.*262144/),
    })
  })

  it('is told in a stream too', async () => {
    const args = Array.from({ length: 30 }, () => 'x'.repeat(100_000))
    await using stream = await Stream.start(platform, capsule(), 'exec/stream', { cmd: 'true', args })
    expect(await stream.next()).toMatchObject({ type: 'error', code: 'too_large', fatal: true })
  })

  it('reaches a program up to them', async () => {
    const { stdout } = await capsule().sh('env | wc -c', { envs: large(18, 100_000) })
    expect(Number(stdout)).toBeGreaterThan(1_800_000)
  })
})

describe('the limits of a process', () => {
  it('leave room for 20,000 open files of an ordinary user, and are what databases ask for', async () => {
    expect(await capsule().text('ulimit -n; ulimit -Hn', { user: 'user' })).toBe('1048576\n1048576')
    const open = 'import os; print(len([os.open("/dev/null", os.O_RDONLY) for _ in range(20000)]))'
    expect((await capsule().exec('python3', ['-c', open], { user: 'user' })).stdout).toBe('20000\n')
    expect(await capsule().text('ulimit -Sc; ulimit -Hc; cat /proc/sys/vm/max_map_count')).toBe('0\nunlimited\n1048576')
  })
})

describe('a capsule whose disk is full', () => {
  /** Small: filling a disk of the usual size takes an emulated CPU very long. */
  const size = { disk_size_mb: 64 }
  const runsCommands = async (full: TestCapsule): Promise<void> => {
    // More than the agent has pipes for in stock.
    const lines = Array.from({ length: 70 }, async (_, run) => expect(await full.text(`echo ${run}`)).toBe(`${run}`))
    await Promise.all(lines)
    const { stdout, exit_code } = await full.sh('head -c 3000000 /dev/zero', { timeout_sec: 120 })
    expect([stdout.length, exit_code]).toEqual([3_000_000, 0])
    await using stream = await Stream.start(platform, full, 'pty', { cmd: '/bin/echo', args: ['terminal'] })
    expect((await stream.untilExit()).output.toString()).toBe('terminal\r\n')
  }
  const isUsable = async (again: TestCapsule): Promise<void> => {
    expect(await again.text('echo there >/root/again; cat /root/again')).toBe('there')
  }

  it('runs commands without a block left, and with /run full and /tmp read-only', async () => {
    await using full = await api.create(size)
    await full.text(
      'mount -t tmpfs -o ro none /tmp; cat /dev/zero >/run/blocks 2>&1 || cat /dev/zero >/blocks 2>&1 || :',
    )
    expect(await full.text('df --output=avail / /run | tail -n +2 | tr -d " "')).toBe('0\n0')
    await runsCommands(full)
    await full.text('umount /tmp; rm /blocks /run/blocks')
    await isUsable(full)
  })

  it('runs commands without an inode left', async () => {
    await using full = await api.create(size)
    const lines = ['import os', 'os.mkdir("/many")', 'try:', ' for i in range(10**6): os.mknod(f"/many/{i}")']
    const fill = [...lines, 'except OSError: pass'].join('\n')
    expect(await full.exec('python3', ['-c', fill], { timeout_sec: 300 })).toMatchObject({ exit_code: 0 })
    expect(await full.text('df --output=iavail / | tail -1 | tr -d " "')).toBe('0')
    await runsCommands(full)
    await full.text('rm -r /many')
    await isUsable(full)
  })
})
