import { writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { Process } from '@wrenn/protocol/guest'
import { describe, expect, it } from 'vitest'
import { AgentHarness, SECRET } from '../testing/agent-harness.js'
import { collect } from '../testing/collect.js'
import { eventually } from '../testing/eventually.js'

const MIB = 1024 * 1024
const client = (harness: AgentHarness) => harness.client(Process)
const zeros = (bytes: number) => ({ cmd: 'head', args: ['-c', String(bytes), '/dev/zero'] })

/** A client that asks for a process and never reads the answer. */
async function startWithoutReading(harness: AgentHarness, request: object): Promise<Socket> {
  const payload = Buffer.from(JSON.stringify(request))
  const frame = Buffer.alloc(5 + payload.length)
  frame.writeUInt32BE(payload.length, 1)
  payload.copy(frame, 5)
  const socket = connect(harness.agent.port, '127.0.0.1')
  const head = [
    'POST /process.Process/Start HTTP/1.1',
    'host: a',
    `x-wrenn-secret: ${SECRET}`,
    'content-type: application/connect+json',
    `content-length: ${frame.length}`,
  ]
  socket.write(`${head.join('\r\n')}\r\n\r\n`)
  socket.write(frame)
  socket.pause()
  return socket
}

async function outputOf(harness: AgentHarness, tag: string): Promise<number> {
  const { processes } = await client(harness).list({ includeEnded: true })
  return Number(processes.find((each) => each.tag === tag)?.outputOffset ?? 0)
}

describe('output faster than its reader', () => {
  it('makes the process wait for a stalled client, with little memory, and goes on when the client leaves', async () => {
    await using harness = await AgentHarness.start()
    const before = process.memoryUsage().rss
    const socket = await startWithoutReading(harness, { process: zeros(200 * MIB), stdin: false, tag: 'stalled' })
    let last = -1
    await eventually('the output to stop', async () => {
      const now = await outputOf(harness, 'stalled')
      const stopped = now > 0 && now === last
      last = now
      return stopped
    })
    expect(last).toBeLessThan(16 * MIB)
    expect(process.memoryUsage().rss - before).toBeLessThan(48 * MIB)
    socket.destroy()
    await eventually('the process to finish', async () => (await outputOf(harness, 'stalled')) === 200 * MIB)
    const selector = { selector: { case: 'tag', value: 'stalled' } } as const
    const replay = await collect(client(harness).connect({ process: selector, fromOffset: 0n }))
    expect(replay.stdout.length).toBe(200 * MIB)
    expect(replay.end?.exitCode).toBe(0)
  })

  it('leaves alone behind the one reader of two that stalls: the program ends, and the slow one has all when it reads', async () => {
    await using harness = await AgentHarness.start()
    const gate = join(harness.dir, 'gate')
    const script = `while [ ! -e ${gate} ]; do sleep 0.05; done; exec head -c ${16 * MIB} /dev/zero`
    const process = { cmd: '/bin/sh', args: ['-c', script] }
    const slow = client(harness).start({ process, stdin: false, tag: 'two' })[Symbol.asyncIterator]()
    expect((await slow.next()).value?.event?.event.case).toBe('start')
    const selector = { selector: { case: 'tag', value: 'two' } } as const
    const quick = collect(client(harness).connect({ process: selector, fromOffset: 0n }))
    writeFileSync(gate, '')
    const { stdout, end, lost } = await quick
    expect([stdout.length, end?.exitCode, lost]).toEqual([16 * MIB, 0, []])
    const rest = await collect({ [Symbol.asyncIterator]: () => slow })
    expect([rest.stdout.length, rest.end?.exitCode, rest.lost]).toEqual([16 * MIB, 0, []])
  })

  it('tells which bytes are lost when the log had to drop them', async () => {
    await using harness = await AgentHarness.start({ logLimits: { memoryBytes: MIB, diskBytes: 32 * MIB } })
    const socket = await startWithoutReading(harness, { process: zeros(90 * MIB), stdin: false, tag: 'dropped' })
    await eventually('the start', async () => (await outputOf(harness, 'dropped')) > 0)
    socket.destroy()
    await eventually('the end', async () => (await outputOf(harness, 'dropped')) === 90 * MIB)
    const selector = { selector: { case: 'tag', value: 'dropped' } } as const
    const replay = await collect(client(harness).connect({ process: selector, fromOffset: 0n }))
    const [[from, to] = [0, 0]] = replay.lost
    expect(from).toBe(0)
    expect(to + replay.stdout.length).toBe(90 * MIB)
    expect(replay.offsets[0]).toBe(to)
  })
})
