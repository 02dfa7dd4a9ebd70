import { Code, ConnectError } from '@connectrpc/connect'
import { capsuleIds } from '@wrenn/base'
import { FileType, Signal } from '@wrenn/protocol/guest'
import type { WatchCapsulesResponse } from '@wrenn/protocol/host'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ConnectedHost, HostServiceAdapter } from './host-adapter.js'
import { collect, failure, type HostClient } from './host-client.js'
import { describeHostLifecycle } from './host-lifecycle.js'
import { TestHost } from './test-host.js'

/** What every host agent does, seen through its RPC only. */
export function describeHostService(adapter: HostServiceAdapter): void {
  const timeout = adapter.timeoutMs ?? 60_000

  describe(`host service: ${adapter.name}`, { timeout }, () => {
    let host: ConnectedHost
    let client: HostClient
    let capsuleId: string
    let home: string

    const create = async (id: string = capsuleIds.create()): Promise<string> => {
      const shape = { template: 'minimal', vcpus: 1, memoryMib: 512, diskSizeMib: 5120 }
      const { capsule } = await client.createCapsule({ capsuleId: id, ...shape, envs: { KEPT: 'yes' }, generation: 1n })
      expect(capsule).toMatchObject({ capsuleId: id, state: 'running', ...shape })
      return id
    }

    const start = (cmd: string, args: string[], more: { tag?: string; stdin?: boolean; timeoutMs?: number } = {}) =>
      client.startProcess({ capsuleId, start: { process: { cmd, args }, withOffsets: true, stdin: false, ...more } })
    const shell = (line: string, more: { tag?: string; stdin?: boolean; timeoutMs?: number } = {}) =>
      start('/bin/sh', ['-c', line], more)

    const write = (path: string, chunks: readonly Uint8Array[]) =>
      client.writeFile(
        (async function* () {
          yield { part: { case: 'open' as const, value: { capsuleId, path, user: '' } } }
          for (const value of chunks) yield { part: { case: 'chunk' as const, value } }
          yield { part: { case: 'complete' as const, value: true } }
        })(),
      )

    const breakOff = (path: string) =>
      client.writeFile(
        (async function* () {
          yield { part: { case: 'open' as const, value: { capsuleId, path, user: '' } } }
          yield { part: { case: 'chunk' as const, value: Buffer.from('half') } }
        })(),
      )

    const read = async (path: string, range: { offset?: bigint; length?: bigint } = {}) => {
      const chunks: Uint8Array[] = []
      let stat: { size: bigint; length: bigint } | undefined
      for await (const { part } of client.readFile({ capsuleId, path, ...range })) {
        if (part.case === 'stat') stat = part.value
        else if (part.case === 'chunk') chunks.push(part.value)
      }
      return { stat, bytes: Buffer.concat(chunks) }
    }

    beforeAll(async () => {
      host = await adapter.connect()
      client = host.client
      capsuleId = await create()
      home = (await collect(shell('pwd'))).stdout.trim()
    }, timeout * 5)
    afterAll(async () => {
      await client.destroyCapsule({ capsuleId })
      await host[Symbol.asyncDispose]()
    }, timeout)

    it('says what it is and which templates it has', async () => {
      expect(await client.getHost({})).toMatchObject({ ready: true, hostId: expect.stringMatching(/^host-/) })
      const { templates } = await client.listTemplates({})
      expect(templates.map(({ name }) => name)).toContain('minimal')
    })

    it('lists, gets and measures its capsules', async () => {
      const { capsules } = await client.listCapsules({})
      expect(capsules.find((capsule) => capsule.capsuleId === capsuleId)?.state).toBe('running')
      expect((await client.getCapsule({ capsuleId })).capsule?.agentVersion).not.toBe('')
      expect((await client.getMetrics({ capsuleId })).memTotalBytes).toBeGreaterThan(0n)
    })

    it('creates a capsule once, whoever asks again, and destroys it as often as asked', async () => {
      const id = await create()
      await create(id)
      expect(await client.destroyCapsule({ capsuleId: id })).toMatchObject({ existed: true })
      expect(await client.destroyCapsule({ capsuleId: id })).toMatchObject({ existed: false })
      expect(await failure(client.getCapsule({ capsuleId: id }))).toBe('capsule_not_found')
    })

    it('tells watchers what is there, that this was all, and every change', async () => {
      const stop = new AbortController()
      const events = client.watchCapsules({}, { signal: stop.signal })[Symbol.asyncIterator]()
      const until = async (wanted: (event: WatchCapsulesResponse['event']) => boolean): Promise<void> => {
        for (let next = await events.next(); next.done !== true; next = await events.next()) {
          if (wanted(next.value.event)) return
        }
        throw new Error('The watch ended.')
      }
      await until((event) => event.case === 'capsule' && event.value.capsuleId === capsuleId)
      await until((event) => event.case === 'synced')
      const id = capsuleIds.create()
      const created = create(id)
      await until(
        (event) => event.case === 'capsule' && event.value.capsuleId === id && event.value.state === 'running',
      )
      await created
      await client.destroyCapsule({ capsuleId: id })
      await until((event) => event.case === 'removed' && event.value === id)
      stop.abort()
    })

    it('refuses an unknown template, a bad id and an unknown capsule, each by its code', async () => {
      const shape = { template: 'no-such-template', vcpus: 1, memoryMib: 512, diskSizeMib: 5120 }
      expect(await failure(client.createCapsule({ capsuleId: capsuleIds.create(), ...shape }))).toBe(
        'template_not_found',
      )
      expect(await failure(client.createCapsule({ capsuleId: '../x', ...shape }))).toBe('invalid_request')
      const nowhere = { capsuleId: capsuleIds.create(), path: '/tmp' }
      expect(await failure(client.statFile(nowhere))).toBe('capsule_not_found')
    })

    it('runs commands: output by stream with offsets, exit code, environment', async () => {
      const { seen, end, stdout, stderr } = await collect(shell('echo "out $KEPT"; echo err >&2; exit 4'))
      expect([stdout, stderr]).toEqual(['out yes\n', 'err\n'])
      expect(end).toMatchObject({ exitCode: 4, exited: true, timedOut: false, offset: 12n })
      expect(seen[0]?.case).toBe('start')
      const offsets = seen.flatMap((event) => (event.case === 'data' ? [event.value.offset] : []))
      expect(offsets[0]).toBe(0n)
    })

    it('reports the signal that ended a process', async () => {
      expect((await collect(shell('kill -9 $$'))).end).toMatchObject({ signal: 9, exited: false })
    })

    it('says 127 for a command that does not exist', async () => {
      expect((await collect(start('no-such-command', []))).end?.exitCode).toBe(127)
    })

    it('says 126 for a command whose name no kernel takes', async () => {
      expect((await collect(start('x'.repeat(200_000), []))).end?.exitCode).toBe(126)
    })

    it('kills the whole process tree at its deadline and keeps the output so far', async () => {
      const { end, stdout } = await collect(shell('echo before; sleep 600 & wait', { timeoutMs: 700 }))
      expect(end?.timedOut).toBe(true)
      expect(stdout).toBe('before\n')
      expect((await client.listProcesses({ capsuleId })).processes).toEqual([])
    })

    it('feeds input, and ends it', async () => {
      const process = { selector: { case: 'tag' as const, value: 'fed' } }
      const lines: string[] = []
      for await (const { event } of start('cat', [], { tag: 'fed', stdin: true })) {
        if (event?.event.case === 'start') {
          const value = Buffer.from('hello\n')
          await client.sendInput({ capsuleId, input: { process, input: { input: { case: 'stdin', value } } } })
          await client.closeStdin({ capsuleId, process })
        }
        if (event?.event.case === 'data') lines.push(Buffer.from(event.event.value.output.value ?? []).toString())
      }
      expect(lines.join('')).toBe('hello\n')
    })

    it('keeps a process whose follower left, and replays from an offset without loss', async () => {
      const leave = new AbortController()
      const line = 'i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.02; done'
      const request = { process: { cmd: '/bin/sh', args: ['-c', line] }, withOffsets: true, stdin: false, tag: 'kept' }
      const first: Buffer[] = []
      try {
        for await (const { event } of client.startProcess({ capsuleId, start: request }, { signal: leave.signal })) {
          if (event?.event.case !== 'data') continue
          first.push(Buffer.from(event.event.value.output.value ?? []))
          leave.abort()
        }
      } catch (error) {
        expect(ConnectError.from(error).code).toBe(Code.Canceled)
      }
      const seen = Buffer.concat(first)
      const process = { selector: { case: 'tag' as const, value: 'kept' } }
      const rest = await collect(
        client.connectProcess({ capsuleId, connect: { process, fromOffset: BigInt(seen.length) } }),
      )
      const whole = Array.from({ length: 30 }, (_, i) => `line ${i}\n`).join('')
      expect(seen.toString() + rest.stdout).toBe(whole)
      expect(rest.end?.exitCode).toBe(0)
    })

    it('gives a follower nothing before its offset, also when the offset is still to come', async () => {
      const process = { selector: { case: 'tag' as const, value: 'ahead' } }
      const events = shell('read -r go; echo 0123456789', { tag: 'ahead', stdin: true })[Symbol.asyncIterator]()
      expect((await events.next()).value?.event?.event.case).toBe('start')
      const ahead = client.connectProcess({ capsuleId, connect: { process, fromOffset: 4n } })[Symbol.asyncIterator]()
      expect((await ahead.next()).value?.event?.event.case).toBe('start')
      const value = Buffer.from('go\n')
      await client.sendInput({ capsuleId, input: { process, input: { input: { case: 'stdin', value } } } })
      expect((await collect({ [Symbol.asyncIterator]: () => ahead })).stdout).toBe('456789\n')
      expect((await collect({ [Symbol.asyncIterator]: () => events })).stdout).toBe('0123456789\n')
    })

    it('signals a process tree by tag, and knows no process it did not start', async () => {
      const process = { selector: { case: 'tag' as const, value: 'doomed' } }
      let signal: number | undefined
      for await (const { event } of shell('sleep 600 & wait', { tag: 'doomed' })) {
        if (event?.event.case === 'start') {
          await client.signalProcess({ capsuleId, signal: { process, signal: Signal.SIGKILL } })
        }
        if (event?.event.case === 'end') signal = event.event.value.signal
      }
      expect(signal).toBe(9)
      const nobody = { selector: { case: 'tag' as const, value: 'nobody' } }
      expect(
        await failure(client.signalProcess({ capsuleId, signal: { process: nobody, signal: Signal.SIGKILL } })),
      ).toBe('process_not_found')
    })

    it('opens a terminal of the asked size, and resizes it', async () => {
      const process = { selector: { case: 'tag' as const, value: 'term' } }
      const line = 'stty size; until [ "$(stty size)" = "40 100" ]; do sleep 0.05; done; echo resized'
      let seen = ''
      const terminal = client.startProcess({
        capsuleId,
        start: { process: { cmd: '/bin/sh', args: ['-c', line] }, tag: 'term', pty: { size: { cols: 91, rows: 33 } } },
      })
      for await (const { event } of terminal) {
        if (event?.event.case !== 'data') continue
        seen += Buffer.from(event.event.value.output.value ?? []).toString()
        if (/33 91/.test(seen) && !seen.includes('resized')) {
          await client.resizePty({ capsuleId, process, cols: 100, rows: 40 })
        }
      }
      expect(seen).toMatch(/33 91[\s\S]*resized/)
    })

    it('writes files through missing folders and reads them whole and in parts', async () => {
      const path = `${home}/a/b/file.bin`
      const content = Buffer.alloc(700_000, 'wrenn')
      const chunks = [content.subarray(0, 1), content.subarray(1, 400_000), content.subarray(400_000)]
      expect((await write(path, chunks)).bytes).toBe(700_000n)
      const whole = await read(path)
      expect(whole.stat).toMatchObject({ size: 700_000n, length: 700_000n })
      expect(whole.bytes.equals(content)).toBe(true)
      const part = await read(path, { offset: 699_990n, length: 100n })
      expect(part.stat).toMatchObject({ size: 700_000n, length: 10n })
      expect(part.bytes.equals(content.subarray(-10))).toBe(true)
      expect((await collect(start('wc', ['-c', path]))).stdout).toContain('700000')
    })

    it('keeps nothing of an upload that ends without saying that it is complete', async () => {
      const path = `${home}/broken-off`
      expect(await failure(breakOff(path))).toBe('invalid_request')
      expect(await failure(client.statFile({ capsuleId, path }))).toBe('file_not_found')
      await write(path, [Buffer.from('whole')])
      expect(await failure(breakOff(path))).toBe('invalid_request')
      expect((await read(path)).bytes.toString()).toBe('whole')
    })

    it('describes, lists, makes, moves and removes', async () => {
      await write(`${home}/d/one.txt`, [Buffer.from('one')])
      const { entry } = await client.statFile({ capsuleId, path: `${home}/d/one.txt` })
      expect(entry).toMatchObject({ name: 'one.txt', type: FileType.FILE, size: 3n, owner: 'root' })
      expect((await client.makeDir({ capsuleId, path: `${home}/d/sub/deep` })).entry?.type).toBe(FileType.DIRECTORY)
      expect(await failure(client.makeDir({ capsuleId, path: `${home}/d/sub` }))).toBe('conflict')
      await client.moveFile({ capsuleId, source: `${home}/d/one.txt`, destination: `${home}/d/sub/two.txt` })
      const { entries } = await client.listDir({ capsuleId, path: `${home}/d`, depth: 2 })
      expect(entries.map(({ path }) => path.slice(home.length))).toEqual(['/d/sub', '/d/sub/deep', '/d/sub/two.txt'])
      await client.removeFile({ capsuleId, path: `${home}/d` })
      expect(await failure(client.statFile({ capsuleId, path: `${home}/d` }))).toBe('file_not_found')
    })

    it('names what is wrong with a path', async () => {
      expect(await failure(read('/no/such/file'))).toBe('file_not_found')
      expect(await failure(read(home))).toBe('is_a_directory')
      expect(await failure(client.listDir({ capsuleId, path: '/no/such', depth: 1 }))).toBe('file_not_found')
    })

    describeHostLifecycle(new TestHost(adapter, () => host))
  })
}
