import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { COUNT, expectComplete, readWitness, STOP_FILE, WITNESS } from '../harness/counting.js'
import { killAndAwait } from '../harness/kill.js'
import { collect, spawnWrenn } from '../harness/platform.js'
import { openClient } from '../harness/sdk.js'
import { endOf, type Frame, outputOf, Stream } from '../harness/stream.js'

const { platform, api } = usePlatform()
let capsule: TestCapsule

beforeAll(async () => {
  capsule = await api.create({ name: 'pause' })
})
afterAll(async () => {
  await capsule?.destroy()
})
beforeEach(async () => {
  await capsule.text(`rm -f ${STOP_FILE}`)
})

const finish = (): Promise<string> => capsule.text(`touch ${STOP_FILE}`)
const count = (): Promise<Stream> =>
  Stream.start(platform, capsule, 'exec/stream', { cmd: '/bin/sh', args: ['-c', COUNT] })
const refused = (message: RegExp) => ({
  status: 409,
  code: 'invalid_state',
  message: expect.stringMatching(message),
})

describe('a capsule that is paused and resumed', () => {
  it('has memory, processes, tmpfs and files exactly as they were, however often', async () => {
    const { tag } = await capsule.background('', { cmd: 'python3', args: ['-c', WITNESS] })
    const hashes = 'sha256sum /dev/shm/nonce /root/file'
    const before = await capsule.text(
      `head -c 1000000 /dev/urandom > /dev/shm/nonce; head -c 5000000 /dev/urandom > /root/file; ${hashes}`,
    )
    await using witness = await Stream.open(platform, `${capsule.path}/processes/${tag}/stream?from_offset=0`)
    await witness.until((frame) => outputOf([frame]).length > 0)
    for (let round = 0; round < 3; round++) {
      const paused = await capsule.pause()
      expect(paused).toMatchObject({ state: 'paused', status: 'paused', pause_reason: 'request' })
      expect(paused.lifecycle_timings?.map(({ step }) => step)).toContain('total')
      expect(await capsule.get()).toMatchObject({ state: 'paused', paused_at: paused.paused_at })
      expect(await capsule.resume()).toMatchObject({ state: 'running', status: 'running' })
    }
    expect(await capsule.text(hashes)).toBe(before)
    await finish()
    await witness.untilExit()
    await using all = await Stream.open(platform, `${capsule.path}/processes/${tag}/stream?from_offset=0`)
    readWitness((await all.untilExit()).output.toString())
  })

  it('has the right time again', async () => {
    await capsule.pause()
    await capsule.resume()
    const before = Date.now()
    const guest = Number(await capsule.text('date +%s%3N'))
    expect(guest).toBeGreaterThanOrEqual(before - 1000)
    expect(guest).toBeLessThanOrEqual(Date.now() + 1000)
  })

  it('refuses what needs it to run, and says what to do', async () => {
    await capsule.pause()
    const exec = { json: { cmd: 'true' } }
    expect(await api.refusal('POST', `${capsule.path}/exec`, exec)).toEqual(refused(/paused.*Resume.*auto_resume/))
    expect(await api.refusal('GET', `${capsule.path}/files?path=/etc/passwd`)).toEqual(refused(/paused.*Resume/))
    expect(await api.refusal('POST', `${capsule.path}/pause`)).toEqual(refused(/is paused.*Possible: resume/))
    await using pty = await Stream.start(platform, capsule, 'pty', { cmd: '/bin/sh' })
    expect(await pty.next()).toMatchObject({ type: 'error', code: 'invalid_state', fatal: true })
    await capsule.resume()
    expect(await api.refusal('POST', `${capsule.path}/resume`)).toEqual(refused(/is running.*Possible: pause/))
  })

  it('is moved once for each idempotency key, and answers what became of it', async () => {
    const pause = { headers: { 'Idempotency-Key': crypto.randomUUID() }, query: { wait_sec: '120' } }
    const answers = await Promise.all([1, 2, 3].map(() => api.call('POST', `${capsule.path}/pause`, pause)))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    await capsule.resume()
    // The key belongs to a pause that is over: it answers that, and pauses nothing again.
    expect((await api.call('POST', `${capsule.path}/pause`, pause)).json()).toMatchObject({ state: 'paused' })
    expect(await capsule.get()).toMatchObject({ state: 'running' })
  })

  it('goes on to the end when nobody waits for it', async () => {
    const query = { wait_sec: '0' }
    const first = await api.json<{ state: string }>('POST', `${capsule.path}/pause`, { query })
    expect(['pausing', 'paused']).toContain(first.state)
    await capsule.untilState('paused')
    const second = await api.json<{ state: string }>('POST', `${capsule.path}/resume`, { query })
    expect(['resuming', 'running']).toContain(second.state)
    await capsule.untilState('running')
  })

  it('tells when its saved state would survive a power loss', async () => {
    expect(await capsule.pause()).toMatchObject({ durable: false })
    expect(await capsule.until('durable', ({ durable }) => durable === true)).toMatchObject({
      durable_at: expect.stringMatching(/Z$/),
    })
    await capsule.resume()
    expect(await capsule.text('echo works')).toBe('works')
  })
})

describe('what was open when a capsule was paused', () => {
  it('stays open, is silent, and goes on where it was: streams, terminals and commands', async () => {
    await using stream = await count()
    await using pty = await Stream.start(platform, capsule, 'pty', { cmd: '/bin/sh', envs: { PS1: '> ' } })
    const foreground = capsule.sh(COUNT, { timeout_sec: 0, tag: 'foreground' })
    const began = await stream.untilOutput('line 5\n')
    await capsule.untilRuns('foreground')
    pty.sendInput('input', 'kept=$((40 + 2))\n')
    await pty.untilOutput('\n> ')
    await capsule.pause()
    pty.sendInput('input', 'echo "is $kept"\n')
    await capsule.resume()
    await pty.untilOutput('is 42\r\n')
    await finish()
    expectComplete(began + (await stream.untilExit()).output.toString())
    expectComplete((await foreground).stdout)
    pty.sendInput('input', 'exit 3\n')
    expect((await pty.untilExit()).exit.exit_code).toBe(3)
  })

  it('goes on too when the host agent was killed meanwhile', async () => {
    await using stream = await count()
    const began = await stream.untilOutput('line 5\n')
    await capsule.pause()
    await killAndAwait(platform, 'host-agent')
    expect(await capsule.get()).toMatchObject({ state: 'paused' })
    await capsule.resume()
    await finish()
    expectComplete(began + (await stream.untilExit()).output.toString())
  })

  it('is taken up again when the control plane was killed meanwhile', async () => {
    const wrenn = await openClient(platform)
    const changes: string[] = []
    const follower = await (await wrenn.capsules.get(capsule.id)).stream(COUNT, {
      onConnection: (state) => changes.push(state),
    })
    const events = follower[Symbol.asyncIterator]()
    let text = Buffer.from(((await events.next()).value as { data: Uint8Array }).data).toString()
    const cli = spawnWrenn(platform, ['capsule', 'exec', capsule.id, '--', 'sh', '-c', COUNT])
    const cliEnd = collect(cli, '')
    await new Promise((resolve) => cli.stdout?.once('data', resolve))
    await using socket = await Stream.start(platform, capsule, 'exec/stream', {
      cmd: '/bin/sh',
      args: ['-c', COUNT],
      tag: 'over-restart',
    })
    const frames: Frame[] = await socket.until((frame) => outputOf([frame]).includes('line 5\n'))
    await capsule.pause()
    await killAndAwait(platform, 'control-plane')
    for (let frame = await socket.next(); frame !== undefined; frame = await socket.next()) frames.push(frame)
    expect(await capsule.get()).toMatchObject({ state: 'paused' })
    await capsule.resume()
    await finish()
    const from = endOf(frames)
    await using again = await Stream.open(platform, `${capsule.path}/processes/over-restart/stream?from_offset=${from}`)
    expectComplete(outputOf(frames).toString() + (await again.untilExit()).output.toString())
    for await (const event of follower) if (event.type === 'stdout') text += Buffer.from(event.data).toString()
    expectComplete(text)
    expect(changes).toContain('restored')
    expectComplete((await cliEnd).stdout)
    expect((await cliEnd).code).toBe(0)
  })
})
