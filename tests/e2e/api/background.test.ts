import type { ProcessInfo, ProcessList } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'
import { Stream } from '../harness/stream.js'

const { api, platform } = usePlatform()
const capsule = useCapsule()

async function processes(query: Record<string, string> = {}): Promise<ProcessInfo[]> {
  return (await api.json<ProcessList>('GET', `${capsule().path}/processes`, { query })).processes
}

async function follow(selector: string | number, query = 'from_offset=0'): Promise<Stream> {
  return await Stream.open(platform, `${capsule().path}/processes/${selector}/stream?${query}`)
}

describe('a background process', () => {
  it('is answered at once with 202, listed while it runs, and found by pid and tag', async () => {
    const json = { cmd: '/bin/sh', args: ['-c', 'echo ready; sleep 1000'], background: true, tag: 'listed' }
    const answer = await api.call('POST', `${capsule().path}/exec`, { json })
    expect(answer.status).toBe(202)
    const { pid, tag } = answer.json<{ pid: number; tag: string }>()
    expect(tag).toBe('listed')
    expect((await processes()).find((one) => one.pid === pid)).toMatchObject({
      tag: 'listed',
      cmd: '/bin/sh',
      args: ['-c', 'echo ready; sleep 1000'],
      running: true,
      pty: false,
    })
    for (const selector of [pid, tag]) {
      await using stream = await follow(selector)
      expect(await stream.untilOutput('ready')).toBe('ready\n')
    }
    await api.json('DELETE', `${capsule().path}/processes/${tag}`)
    await using stream = await follow(tag)
    expect((await stream.untilExit()).exit).toMatchObject({ exit_code: 137, signal: 9 })
    expect(await processes()).toEqual([])
  })

  it('gets the signal that was asked for, and so do its children', async () => {
    const { tag } = await capsule().background('trap "echo got it; exit 5" TERM; sleep 1000 & echo waiting; wait', {
      tag: 'trapped',
    })
    await using stream = await follow(tag)
    await stream.untilOutput('waiting')
    await api.json('DELETE', `${capsule().path}/processes/${tag}`, { query: { signal: 'SIGTERM' } })
    const { output, exit } = await stream.untilExit()
    expect(output.toString()).toBe('got it\n')
    expect(exit.exit_code).toBe(5)
    expect(await capsule().text('pgrep -a sleep || echo none')).toBe('none')
  })

  it('keeps its output and exit for those who come later', async () => {
    const { tag } = await capsule().background('echo early; echo late >&2; exit 9')
    await using stream = await follow(tag)
    const { frames, exit } = await stream.untilExit()
    expect(exit.exit_code).toBe(9)
    expect(frames.filter(({ type }) => type === 'stdout' || type === 'stderr')).toMatchObject([
      { type: 'stdout', data: 'early\n' },
      { type: 'stderr', data: 'late\n' },
    ])
    expect((await processes({ include_ended: 'true' })).find((one) => one.tag === tag)).toMatchObject({
      running: false,
    })
  })

  it('has a tag of its own: a second one with it is refused while the first runs', async () => {
    await capsule().background('sleep 1000', { tag: 'mine' })
    const json = { cmd: 'true', background: true, tag: 'mine' }
    expect(await api.refusal('POST', `${capsule().path}/exec`, { json })).toMatchObject({
      status: 409,
      code: 'conflict',
    })
    await api.json('DELETE', `${capsule().path}/processes/mine`)
  })

  it('ends after its timeout', async () => {
    const { tag } = await capsule().background('echo started; sleep 1000', { timeout_sec: 1 })
    await using stream = await follow(tag)
    expect((await stream.untilExit()).exit).toMatchObject({ timed_out: true, exit_code: 124 })
  })

  it('is not there under a name that nobody gave', async () => {
    const missing = { status: 404, code: 'process_not_found' }
    expect(await api.refusal('DELETE', `${capsule().path}/processes/no-such`)).toMatchObject(missing)
    expect(await api.refusal('DELETE', `${capsule().path}/processes/4194000`)).toMatchObject(missing)
    await using stream = await follow('no-such')
    expect(await stream.next()).toMatchObject({ type: 'error', code: 'process_not_found', fatal: true })
    expect(await stream.closed).toBe(1008)
  })
})
