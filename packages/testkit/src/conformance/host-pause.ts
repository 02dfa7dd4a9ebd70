import type { WatchCapsulesResponse } from '@wrenn/protocol/host'
import { describe, expect, it } from 'vitest'
import { collect, drain, failure } from './host-client.js'
import { checkpoint, pause, resume, type TestHost } from './test-host.js'
import { Witnesses } from './witnesses.js'

const NEVER = 'while :; do sleep 1; done'
/** More than the tolerance of a clock, so that one that stood still is found out. */
const LONG_PAUSE_MS = 3_000
const CLOCK_TOLERANCE_MS = 2_000

/** Standing still and going on. */
export function describePause(host: TestHost): void {
  describe('pause and resume', { timeout: host.timeoutMs }, () => {
    it('keep the memory of processes, files, and a running process with all its output', async () => {
      const capsule = await host.create()
      const witnesses = new Witnesses()
      await witnesses.start(capsule)
      const tmpfs = `/dev/shm/wrenn-${witnesses.nonce}`
      await capsule.output(`printf ${witnesses.nonce} > ${tmpfs}; printf ${witnesses.nonce} > on-disk`)
      try {
        const before = await witnesses.count(capsule)
        const pids = (await capsule.processes()).map(({ pid }) => pid)
        expect((await pause(capsule))?.state).toBe('paused')
        expect((await resume(capsule))?.state).toBe('running')
        await witnesses.recall(capsule)
        expect(await witnesses.count(capsule, before)).toBeGreaterThan(before)
        expect((await capsule.processes()).map(({ pid }) => pid)).toEqual(pids)
        expect(await capsule.output(`cat ${tmpfs} on-disk`)).toBe(witnesses.nonce.repeat(2))
      } finally {
        await resume(capsule)
        await capsule.output(`rm -f ${tmpfs}`)
      }
    })

    it('may be asked for again, and say when and why the capsule was paused', async () => {
      const capsule = await host.create()
      expect(await resume(capsule)).toMatchObject({ state: 'running', pauseReason: '', savedGeneration: 0n })
      const first = await pause(capsule, 'idle')
      expect(first).toMatchObject({ state: 'paused', pauseReason: 'idle' })
      expect(first?.pausedAtMs).toBeGreaterThan(0n)
      expect(first?.savedGeneration).toBeGreaterThan(0n)
      expect(first?.lifecycleTimings.length).toBeGreaterThan(0)
      const { pausedAtMs, savedGeneration } = first ?? {}
      expect(await pause(capsule)).toMatchObject({ state: 'paused', pauseReason: 'idle', pausedAtMs, savedGeneration })
      expect((await resume(capsule))?.state).toBe('running')
      expect((await resume(capsule))?.state).toBe('running')
      expect(await capsule.output('echo $KEPT')).toBe('yes')
    })

    it('refuse what needs a running guest in between', async () => {
      const capsule = await host.create()
      const { client, id: capsuleId } = capsule
      await capsule.launch(NEVER, 'sleeper')
      await pause(capsule)
      const process = { selector: { case: 'tag' as const, value: 'sleeper' } }
      const calls: Record<string, () => Promise<unknown>> = {
        listProcesses: () => client.listProcesses({ capsuleId }),
        startProcess: () => collect(capsule.shell('true')),
        connectProcess: () => drain(client.connectProcess({ capsuleId, connect: { process } })),
        statFile: () => client.statFile({ capsuleId, path: '/tmp' }),
        readFile: () => capsule.read('/etc/hostname'),
        writeFile: () => capsule.write('file', 'text'),
        closeStdin: () => client.closeStdin({ capsuleId, process }),
        getMetrics: () => client.getMetrics({ capsuleId }),
      }
      for (const [name, call] of Object.entries(calls))
        expect([name, await failure(call())]).toEqual([name, 'invalid_state'])
      expect((await client.listCapsules({})).capsules.find((one) => one.capsuleId === capsuleId)?.state).toBe('paused')
      await resume(capsule)
      expect(await capsule.tags()).toEqual(['sleeper'])
    })

    it('end an open stream, which goes on from its offset after the resume', async () => {
      const capsule = await host.create()
      let seen = ''
      const follow = async (): Promise<void> => {
        const line = 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done'
        for await (const { event } of capsule.shell(line, { tag: 'counter' })) {
          if (event?.event.case === 'data') seen += Buffer.from(event.event.value.output.value ?? []).toString()
        }
      }
      const followed = failure(follow())
      await expect.poll(() => seen.split('\n').length, { timeout: host.timeoutMs }).toBeGreaterThan(3)
      await pause(capsule)
      expect(await followed).toBe('invalid_state')
      await resume(capsule)
      const rest = await capsule.watch('counter', (text) => text.split('\n').length > 3, BigInt(seen.length))
      const numbers = (seen + rest).split('\n').slice(0, -1)
      expect(numbers).toEqual(numbers.map((_, index) => String(index)))
    })

    it('keep a terminal and what runs in it', async () => {
      const capsule = await host.create()
      const { client, id: capsuleId } = capsule
      const leave = new AbortController()
      const args = ['-c', 'read nonce; while read question; do echo "$question: $nonce"; done']
      const pty = { size: { cols: 80, rows: 24 } }
      const terminal = client.startProcess(
        { capsuleId, start: { process: { cmd: '/bin/sh', args }, tag: 'terminal', pty } },
        { signal: leave.signal },
      )
      for await (const { event } of terminal) if (event?.event.case === 'start') break
      leave.abort()
      const process = { selector: { case: 'tag' as const, value: 'terminal' } }
      const type = async (text: string): Promise<void> => {
        const value = Buffer.from(text)
        await client.sendInput({ capsuleId, input: { process, input: { input: { case: 'pty', value } } } })
      }
      await type('violet\nbefore\n')
      await capsule.watch('terminal', (text) => text.includes('before: violet'))
      await pause(capsule)
      await resume(capsule)
      await type('after\n')
      await capsule.watch('terminal', (text) => text.includes('after: violet'))
    })

    it('stop the deadline of a process, which still holds afterwards', async () => {
      const capsule = await host.create()
      const startedAt = performance.now()
      await capsule.launch(NEVER, 'limited', { timeoutMs: 2_000 })
      await pause(capsule)
      await passTime(1_000)
      await resume(capsule)
      const process = { selector: { case: 'tag' as const, value: 'limited' } }
      const connect = { process, fromOffset: 0n }
      const { end } = await collect(capsule.client.connectProcess({ capsuleId: capsule.id, connect }))
      expect(end).toMatchObject({ timedOut: true })
      expect(performance.now() - startedAt).toBeGreaterThan(2_900)
    })

    it('are seen by watchers', async () => {
      const capsule = await host.create()
      const stop = new AbortController()
      const events = capsule.client.watchCapsules({}, { signal: stop.signal })[Symbol.asyncIterator]()
      const until = async (wanted: (event: WatchCapsulesResponse['event']) => boolean): Promise<void> => {
        for (let next = await events.next(); next.done !== true; next = await events.next()) {
          if (wanted(next.value.event)) return
        }
        throw new Error('The watch ended.')
      }
      const isIn = (state: string) => (event: WatchCapsulesResponse['event']) =>
        event.case === 'capsule' && event.value.capsuleId === capsule.id && event.value.state === state
      await until((event) => event.case === 'synced')
      await pause(capsule)
      await until(isIn('paused'))
      await resume(capsule)
      await until(isIn('running'))
      stop.abort()
    })

    host.onMachines('set the clock of the guest', async () => {
      const capsule = await host.create()
      await pause(capsule)
      await passTime(LONG_PAUSE_MS)
      await resume(capsule)
      const from = Date.now()
      const shown = Number(await capsule.output('date +%s%3N'))
      expect(shown).toBeGreaterThan(from - CLOCK_TOLERANCE_MS)
      expect(shown).toBeLessThan(Date.now() + CLOCK_TOLERANCE_MS)
    })

    it('leave nothing of a paused capsule that is destroyed', async () => {
      const capsule = await host.create()
      const { client, id: capsuleId } = capsule
      await checkpoint(capsule)
      await pause(capsule)
      expect(await host.namesOf(capsuleId)).not.toEqual([])
      expect(await client.destroyCapsule({ capsuleId })).toMatchObject({ existed: true })
      expect(await failure(client.getCapsule({ capsuleId }))).toBe('capsule_not_found')
      expect(await failure(client.listCheckpoints({ capsuleId }))).toBe('capsule_not_found')
      expect(await failure(client.resumeCapsule({ capsuleId }))).toBe('capsule_not_found')
      expect(await host.namesOf(capsuleId)).toEqual([])
    })
  })
}

/** For what depends on the time itself; never to wait for something to happen. */
async function passTime(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms))
}
