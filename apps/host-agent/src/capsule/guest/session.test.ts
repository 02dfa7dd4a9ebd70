import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AppError } from '@wrenn/base'
import { FakeGuest } from '@wrenn/testkit'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { GUEST_PORT, GuestClient } from './client.js'
import { connectProcess, startProcess, warmUp } from './session.js'

const ADDRESS = '127.83.0.1'

describe('a process stream', () => {
  let guest: FakeGuest
  let client: GuestClient

  beforeEach(async () => {
    guest = new FakeGuest()
    await guest.listen(ADDRESS, GUEST_PORT)
    client = new GuestClient(ADDRESS, 'first')
  })

  afterEach(async () => {
    client.close()
    await guest[Symbol.asyncDispose]()
  })

  it('is taken up at its offset when the line breaks, and neither loses nor repeats a byte', async () => {
    const script = 'for i in 1 2 3 4 5 6 7 8; do echo line-$i; sleep 0.05; done'
    const controller = new AbortController()
    const events = startProcess(client, { process: { cmd: '/bin/sh', args: ['-c', script] }, stdin: false }, '', {
      signal: controller.signal,
      gone: () => undefined,
      line: async () => client,
    })
    let output = ''
    let starts = 0
    let drops = 0
    let exitCode: number | undefined
    for await (const { event } of events) {
      if (event.case === 'start') starts++
      if (event.case === 'end') exitCode = event.value.exitCode
      if (event.case !== 'data') continue
      output += Buffer.from(event.value.output.value ?? []).toString()
      if (drops++ < 3) guest.dropConnections()
    }
    expect(output).toBe('line-1\nline-2\nline-3\nline-4\nline-5\nline-6\nline-7\nline-8\n')
    expect({ starts, exitCode }).toEqual({ starts: 1, exitCode: 0 })
  })

  it('stays without the past when it follows from now on and the line breaks', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'guest-session-'))
    const until = (file: string) => `until [ -e ${join(dir, file)} ]; do sleep 0.02; done`
    const script = `echo past; ${until('one')}; echo one; ${until('two')}; echo two`
    const options = { signal: new AbortController().signal, gone: () => undefined, line: async () => client }
    const start = { process: { cmd: '/bin/sh', args: ['-c', script] }, stdin: false }
    let pid = 0
    for await (const { event } of startProcess(client, start, '', options)) {
      if (event.case === 'start') pid = event.value.pid
      if (event.case === 'data') break
    }
    let output = ''
    for await (const { event } of connectProcess(client, { pid }, undefined, options)) {
      if (event.case === 'data') output += Buffer.from(event.value.output.value ?? []).toString()
      if (event.case !== 'start' && event.case !== 'data') continue
      guest.dropConnections()
      await writeFile(join(dir, event.case === 'start' ? 'one' : 'two'), '')
    }
    await rm(dir, { recursive: true })
    expect(output).toBe('one\ntwo\n')
  })

  it('is attached to also when the line is closed before the guest has answered', async () => {
    const options = { signal: new AbortController().signal, gone: () => undefined, line: async () => client }
    const start = { process: { cmd: '/bin/sh', args: ['-c', 'echo here; exec sleep 1000'] }, stdin: false }
    let pid = 0
    for await (const { event } of startProcess(client, start, '', options)) {
      if (event.case === 'start') pid = event.value.pid
      if (event.case === 'data') break
    }
    const closed = new GuestClient(ADDRESS, 'first')
    closed.close()
    const seen: (string | undefined)[] = []
    for await (const { event } of connectProcess(closed, { pid }, 0n, options)) {
      seen.push(event.case)
      if (event.case === 'data') process.kill(pid)
    }
    expect(seen).toEqual(['start', 'data', 'end'])
  })

  it('says what ended the guest instead of trying for ever', async () => {
    const died = new AppError('guest_died', 'The guest ran out of memory.')
    let gone: AppError | undefined
    const events = startProcess(
      client,
      { process: { cmd: '/bin/sh', args: ['-c', 'echo up; sleep 60'] }, stdin: false },
      '',
      { signal: new AbortController().signal, gone: () => gone, line: async () => client },
    )
    const read = async (): Promise<void> => {
      for await (const { event } of events) {
        if (event.case !== 'data') continue
        gone = died
        guest.dropConnections()
      }
    }
    await expect(read()).rejects.toBe(died)
  })

  it('says that a command was lost with its agent, not that there is no such process', async () => {
    const follow = { signal: new AbortController().signal, gone: () => undefined, line: async () => client }
    const start = { process: { cmd: '/bin/sh', args: ['-c', 'echo up; sleep 60'] }, stdin: false }
    const read = async (): Promise<void> => {
      for await (const { event } of startProcess(client, start, '', follow))
        if (event.case === 'data') guest.startAnew()
    }
    await expect(read()).rejects.toMatchObject({
      code: 'guest_error',
      message: expect.stringContaining('started anew'),
    })
    const unknown = connectProcess(client, { tag: 'unknown' }, 0n, follow).next()
    await expect(unknown).rejects.toMatchObject({ code: 'not_found' })
  })

  it('tells a guest the time again when the call was long on its way', async () => {
    guest.nextInitLateMs = 700
    await client.identify({ secret: 'first' }, 5_000)
    const [first, second] = guest.identities
    expect(Object.keys(second ?? {})).toEqual(['timestampNs'])
    expect(BigInt(String(second?.timestampNs)) - BigInt(String(first?.timestampNs))).toBeGreaterThanOrEqual(
      399_000_000n,
    )
  })

  it('gives up on a guest that takes its identity and never answers', async () => {
    guest.hangInits = true
    const error = await client.identify({ secret: 'first' }, 200).catch((thrown: unknown) => thrown)
    expect(AppError.is(error, 'guest_unreachable')).toBe(true)
  })

  it('identifies a guest whose answer was lost, with whichever secret it has by then', async () => {
    await client.identify({ secret: 'first' }, 5_000)
    guest.loseNextInit = true
    await client.identify({ secret: 'second', capsuleId: 'cl-1' }, 5_000)
    await warmUp(client)
    expect(guest.identities.map(({ capsuleId }) => capsuleId)).toEqual([undefined, 'cl-1', 'cl-1'])
  })

  it('uses a new secret from the call that set it on', async () => {
    await client.identify({ secret: 'first' }, 1_000)
    await client.identify({ secret: 'second' }, 1_000)
    await warmUp(client)
    expect(guest.secret).toBe('second')
  })
})
