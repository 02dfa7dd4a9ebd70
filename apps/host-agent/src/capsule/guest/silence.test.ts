import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { FakeGuest } from '@wrenn/testkit'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { GUEST_PORT, GuestClient } from './client.js'
import { patienceOf } from './pulse.js'
import { connectProcess, startProcess } from './session.js'

const ADDRESS = '127.83.0.2'
const SILENCE_MS = 1_000

let guest: FakeGuest
let client: GuestClient

beforeEach(async () => {
  guest = new FakeGuest()
  await guest.listen(ADDRESS, GUEST_PORT)
  client = new GuestClient(ADDRESS, 'first', patienceOf(SILENCE_MS))
})
afterEach(async () => {
  client.close()
  await guest[Symbol.asyncDispose]()
})

const options = () => ({ signal: new AbortController().signal, gone: () => undefined, line: async () => client })
const shell = (script: string) => ({ process: { cmd: '/bin/sh', args: ['-c', script] }, stdin: false })

async function outputOf(events: ReturnType<typeof startProcess>): Promise<string> {
  let output = ''
  for await (const { event } of events) {
    if (event.case === 'data') output += Buffer.from(event.value.output.value ?? []).toString()
  }
  return output
}

describe('a process stream of a guest', () => {
  it('is not cut because the process says nothing for longer than a silent guest may', async () => {
    const events = startProcess(client, shell(`sleep ${(3 * SILENCE_MS) / 1000}; echo late`), '', options())
    expect(await outputOf(events)).toBe('late\n')
  })

  it('goes on, no byte lost or twice, when the guest is back before it was given up', async () => {
    const lines = '1\n2\n3\n4\n5\n6\n7\n8\n9\n'
    const events = startProcess(client, shell('for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.1; done'), '', options())
    let output = ''
    for await (const { event } of events) {
      if (event.case !== 'data') continue
      output += Buffer.from(event.value.output.value ?? []).toString()
      if (!output.endsWith('3\n')) continue
      guest.mute()
      setTimeout(() => guest.unmute(), SILENCE_MS / 2)
    }
    expect(output).toBe(lines)
  })

  it('can be taken up at its offset after it was given up', async () => {
    const start = startProcess(client, shell('echo one; sleep 2.5; echo two'), '', options())
    let pid = 0
    let offset = 0n
    const follow = async (): Promise<void> => {
      for await (const { event } of start) {
        if (event.case === 'start') pid = event.value.pid
        if (event.case !== 'data') continue
        offset += BigInt(event.value.output.value?.length ?? 0)
        guest.mute()
      }
    }
    await expect(follow()).rejects.toMatchObject({ code: 'guest_unreachable' })
    guest.unmute()
    expect(await outputOf(connectProcess(client, { pid }, offset, options()))).toBe('two\n')
  })

  it('is opened again at its offset when only its line is lost', async () => {
    const patience = { ...patienceOf(SILENCE_MS), lineMs: 500 }
    client.close()
    client = new GuestClient(ADDRESS, 'first', patience)
    const events = startProcess(client, shell('echo one; sleep 1.5; echo two'), '', options())
    let starts = 0
    let output = ''
    for await (const { event } of events) {
      if (event.case === 'start') starts++
      if (event.case !== 'data') continue
      output += Buffer.from(event.value.output.value ?? []).toString()
      guest.stallStreams()
    }
    expect({ starts, output }).toEqual({ starts: 1, output: 'one\ntwo\n' })
  })
})

describe('the line to a guest', () => {
  it('leaves no timer behind for attempts that were answered', async () => {
    const made = vi.spyOn(globalThis, 'setTimeout')
    const ended = vi.spyOn(globalThis, 'clearTimeout')
    const signals = vi.spyOn(AbortSignal, 'timeout')
    await client.waitHealthy(60_000)
    await client.identify({ secret: 'first' }, 60_000)
    const long = made.mock.results.filter((_, index) => Number(made.mock.calls[index]?.[1]) >= 10_000)
    const cleared = new Set(ended.mock.calls.map(([timer]) => timer))
    expect(long.length).toBeGreaterThan(0)
    expect(long.filter(({ value }) => !cleared.has(value))).toEqual([])
    expect(signals).not.toHaveBeenCalled()
    vi.restoreAllMocks()
  })
})

describe('a connection to a guest', () => {
  it('is not looked after by the kernel sooner than a guest may be silent', async () => {
    const patient = new GuestClient(ADDRESS, 'first', patienceOf())
    await patient.waitHealthy(10_000)
    const { stdout } = await promisify(execFile)('ss', ['-Htno', 'state', 'established', 'dst', ADDRESS])
    patient.close()
    const [, sec] = /timer:\(keepalive,(?:(\d+)sec)/.exec(stdout) ?? []
    expect(Number(sec)).toBeGreaterThanOrEqual(28)
  })
})
