import { once } from 'node:events'
import { connect } from 'node:net'
import { Process } from '@wrenn/protocol/guest'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { AgentHarness, SECRET, TOKEN } from '../testing/agent-harness.js'
import { collect } from '../testing/collect.js'
import { eventually } from '../testing/eventually.js'

let harness: AgentHarness
beforeEach(async () => {
  harness = await AgentHarness.start()
})
afterEach(() => harness[Symbol.asyncDispose]())

const shell = (script: string) => ({ cmd: 'sh', args: ['-c', script] })
const post = async (path: string, body: unknown): Promise<unknown> =>
  (await harness.fetch(path, { method: 'POST', body: JSON.stringify(body) })).json()
const activity = async (): Promise<unknown> => (await harness.fetch('/activity')).json()

/** Reads until the line breaks; gives what came. */
async function readUntilBroken(events: AsyncIterable<unknown>): Promise<number> {
  let count = 0
  try {
    for await (const _ of events) count++
  } catch {
    return count // the broken line is what the caller waits for
  }
  throw new Error('The stream ended in order.')
}

describe('POST /quiesce', () => {
  it('does what it is asked and says so', async () => {
    expect(await post('/quiesce', { sync: false, timeoutMs: 1_000 })).toEqual({
      flushed: true,
      synced: false,
      droppedCaches: false,
    })
    expect(harness.system.calls).toEqual([])
    const all = await post('/quiesce', { sync: true, dropCaches: true, timeoutMs: 60_000 })
    expect(all).toEqual({ flushed: true, synced: true, droppedCaches: true })
    expect(harness.system.calls).toEqual(['sync', 'dropCaches'])
  })

  it('answers in time although the disk does not', async () => {
    harness.system.sync = () => new Promise<void>(() => undefined)
    const answer = await post('/quiesce', { sync: true, dropCaches: true, timeoutMs: 50 })
    expect(answer).toEqual({ flushed: true, synced: false, droppedCaches: false })
  })

  it('names what failed and goes on with the rest', async () => {
    harness.system.sync = () => Promise.reject(new Error('the disk is gone'))
    const answer = await post('/quiesce', { sync: true, dropCaches: true, timeoutMs: 60_000 })
    expect(answer).toMatchObject({ synced: false, droppedCaches: true, problems: ['sync: the disk is gone'] })
  })

  it('is for the host alone, as /activity is, and refuses nonsense', async () => {
    await harness.init({ accessToken: TOKEN })
    const headers = { 'x-wrenn-secret': '', 'x-access-token': TOKEN }
    expect((await harness.fetch('/quiesce', { method: 'POST', body: '{}', headers })).status).toBe(401)
    expect((await harness.fetch('/activity', { headers })).status).toBe(401)
    for (const body of ['[]', '{"timeoutMs":0}', '{"timeoutMs":"1"}', '{"timeoutMs":1e9}'])
      expect((await harness.fetch('/quiesce', { method: 'POST', body })).status).toBe(400)
  })
})

describe('GET /activity', () => {
  it('counts foreground processes, all processes, and open streams', async () => {
    expect(await activity()).toEqual({ foreground: 0, processes: 0, openStreams: 0 })
    const client = harness.client(Process)
    const foreground = collect(client.start({ process: shell('read -r _'), tag: 'a', stdin: true, foreground: true }))
    const background = collect(client.start({ process: shell('read -r _'), tag: 'b', stdin: true }))
    const wanted = JSON.stringify({ foreground: 1, processes: 2, openStreams: 2 })
    await eventually('both to be counted', async () => JSON.stringify(await activity()) === wanted)
    for (const tag of ['a', 'b']) await client.closeStdin({ process: { selector: { case: 'tag', value: tag } } })
    await Promise.all([foreground, background])
    const none = JSON.stringify({ foreground: 0, processes: 0, openStreams: 0 })
    await eventually('all to be over', async () => JSON.stringify(await activity()) === none)
  })
})

describe('POST /init with resumed', () => {
  it('ends every other connection and keeps processes and their output', async () => {
    const client = harness.client(Process)
    const script = 'echo before; read -r line; echo after $line'
    const events = client.start({ process: shell(script), tag: 'kept', stdin: true, withOffsets: true })
    const iterator = events[Symbol.asyncIterator]()
    while ((await iterator.next()).value?.event?.event.case !== 'data');
    const idle = connect(harness.agent.port, '127.0.0.1')
    idle.on('error', () => undefined)
    await once(idle, 'connect')

    const broken = readUntilBroken({ [Symbol.asyncIterator]: () => iterator })
    const closed = new Promise((resolve) => idle.once('close', resolve))
    const answer = await harness.init({ resumed: true })
    expect(answer.status).toBe(200)
    await Promise.all([broken, closed])
    expect(harness.system.kept).toMatchObject({ localPort: harness.agent.port })
    await eventually('the stream to be gone', async () => {
      const now: unknown = await activity()
      return JSON.stringify(now) === JSON.stringify({ foreground: 0, processes: 1, openStreams: 0 })
    })

    const selector = { selector: { case: 'tag', value: 'kept' } } as const
    await client.sendInput({ process: selector, input: { input: { case: 'stdin', value: Buffer.from('resume\n') } } })
    const rest = await collect(client.connect({ process: selector, fromOffset: 0n }))
    expect(rest.stdout.toString()).toBe('before\nafter resume\n')
  })

  it('without it leaves connections alone', async () => {
    const idle = connect(harness.agent.port, '127.0.0.1')
    await once(idle, 'connect')
    await harness.init({ hostname: 'x' })
    expect(harness.system.kept).toBeUndefined()
    idle.write(`GET /envs HTTP/1.1\r\nHost: x\r\nX-Wrenn-Secret: ${SECRET}\r\n\r\n`)
    expect(String((await once(idle, 'data'))[0])).toContain('200 OK')
    idle.destroy()
  })
})
