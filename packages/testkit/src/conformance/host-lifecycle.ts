import { capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import type { Checkpoint, FileChange, WatchCapsulesResponse } from '@wrenn/protocol/host'
import { afterEach, describe, expect, it } from 'vitest'
import { collect, drain, failure, TestCapsule, Witnesses } from './host-client.js'
import type { ConnectedHost, HostServiceAdapter } from './host-service.js'

const SHAPE = { template: 'minimal', vcpus: 1, memoryMib: 512, diskSizeMib: 5120 }
const NEVER = 'while :; do sleep 1; done'
/** More than the tolerance of a clock, so that one that stood still is found out. */
const LONG_PAUSE_MS = 3_000
const CLOCK_TOLERANCE_MS = 2_000

/** That capsules can be paused, copied, kept and brought back, whatever the host runs them with. */
export function describeHostLifecycle(adapter: HostServiceAdapter, host: () => ConnectedHost): void {
  const { guest } = adapter
  const timeout = (adapter.timeoutMs ?? 60_000) * 3
  /** For what only a machine of its own can show. */
  const onMachines = (title: string, test: () => Promise<void>): void =>
    it(title, async (context) => (guest === 'machine' ? await test() : context.skip(guest.instead)))

  const made: string[] = []
  const known = (id: string): TestCapsule => {
    made.push(id)
    return new TestCapsule(host().client, id)
  }
  const create = async (more: { envs?: Record<string, string>; snapshotId?: string } = {}): Promise<TestCapsule> => {
    const capsule = known(capsuleIds.create())
    const envs = { KEPT: 'yes', ...more.envs }
    await capsule.client.createCapsule({ capsuleId: capsule.id, ...SHAPE, generation: 1n, ...more, envs })
    return capsule
  }
  const pause = async ({ client, id }: TestCapsule, reason = 'request') =>
    (await client.pauseCapsule({ capsuleId: id, reason })).capsule
  const resume = async ({ client, id }: TestCapsule) => (await client.resumeCapsule({ capsuleId: id })).capsule
  const stateOf = async ({ client, id }: TestCapsule) => (await client.getCapsule({ capsuleId: id })).capsule?.state
  const checkpoint = async ({ client, id }: TestCapsule, checkpointId: string = checkpointIds.create()) => {
    const { checkpoint } = await client.createCheckpoint({ capsuleId: id, checkpointId })
    if (checkpoint === undefined) throw new Error('The answer has no checkpoint.')
    return checkpoint
  }
  const rollback = async ({ client, id }: TestCapsule, { checkpointId }: Checkpoint) =>
    (await client.rollbackCapsule({ capsuleId: id, checkpointId })).capsule

  afterEach(async () => {
    for (const id of made.splice(0)) await host().client.destroyCapsule({ capsuleId: id })
  }, timeout)

  describe('pause and resume', { timeout }, () => {
    it('keep the memory of processes, files, and a running process with all its output', async () => {
      const capsule = await create()
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
      const capsule = await create()
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
      const capsule = await create()
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
      const capsule = await create()
      let seen = ''
      const follow = async (): Promise<void> => {
        const line = 'i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done'
        for await (const { event } of capsule.shell(line, { tag: 'counter' })) {
          if (event?.event.case === 'data') seen += Buffer.from(event.event.value.output.value ?? []).toString()
        }
      }
      const followed = failure(follow())
      await expect.poll(() => seen.split('\n').length, { timeout }).toBeGreaterThan(3)
      await pause(capsule)
      expect(await followed).toBe('invalid_state')
      await resume(capsule)
      const rest = await capsule.watch('counter', (text) => text.split('\n').length > 3, BigInt(seen.length))
      const numbers = (seen + rest).split('\n').slice(0, -1)
      expect(numbers).toEqual(numbers.map((_, index) => String(index)))
    })

    it('keep a terminal and what runs in it', async () => {
      const capsule = await create()
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
      const capsule = await create()
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
      const capsule = await create()
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

    onMachines('set the clock of the guest', async () => {
      const capsule = await create()
      await pause(capsule)
      await passTime(LONG_PAUSE_MS)
      await resume(capsule)
      const from = Date.now()
      const shown = Number(await capsule.output('date +%s%3N'))
      expect(shown).toBeGreaterThan(from - CLOCK_TOLERANCE_MS)
      expect(shown).toBeLessThan(Date.now() + CLOCK_TOLERANCE_MS)
    })

    it('leave nothing of a paused capsule that is destroyed', async () => {
      const capsule = await create()
      const { client, id: capsuleId } = capsule
      await checkpoint(capsule)
      await pause(capsule)
      expect(await host().namesOf(capsuleId)).not.toEqual([])
      expect(await client.destroyCapsule({ capsuleId })).toMatchObject({ existed: true })
      expect(await failure(client.getCapsule({ capsuleId }))).toBe('capsule_not_found')
      expect(await failure(client.listCheckpoints({ capsuleId }))).toBe('capsule_not_found')
      expect(await failure(client.resumeCapsule({ capsuleId }))).toBe('capsule_not_found')
      expect(await host().namesOf(capsuleId)).toEqual([])
    })
  })

  describe('a fork', { timeout }, () => {
    const fork = async (source: TestCapsule, ids: string[], envs: Record<string, string> = {}) => {
      const copies = ids.map((capsuleId, index) => ({ capsuleId, hostname: `copy-${index}`, generation: 1n, envs }))
      return await source.client.forkCapsule({ capsuleId: source.id, copies })
    }

    it("has its source's memory, processes, files and environment; both go on, each for itself", async () => {
      const source = await create()
      const witnesses = new Witnesses()
      await witnesses.start(source)
      await source.write('file', 'from the source')
      const counted = await witnesses.count(source)
      const ids = [capsuleIds.create(), capsuleIds.create()]
      const copies = ids.map(known)
      const { capsules, pauseWindowMs } = await fork(source, ids, { ADDED: 'too' })
      expect(capsules.map(({ capsuleId }) => capsuleId)).toEqual(ids)
      expect(pauseWindowMs).toBeGreaterThan(0)
      for (const capsule of capsules) expect(capsule).toMatchObject({ state: 'running', parentId: source.id, ...SHAPE })
      for (const copy of copies) {
        await witnesses.recall(copy)
        expect(await witnesses.count(copy, counted)).toBeGreaterThan(counted)
        expect(await copy.tags()).toEqual(['counter', 'memory'])
        expect(await copy.read('file')).toBe('from the source')
        expect(await copy.output('echo $KEPT $ADDED')).toBe('yes too')
        await copy.write('file', copy.id)
      }
      for (const copy of copies) expect(await copy.read('file')).toBe(copy.id)
      expect(await source.read('file')).toBe('from the source')
      expect(await source.output('echo $KEPT $ADDED')).toBe('yes')
      await witnesses.recall(source)
      expect(await witnesses.count(source, counted)).toBeGreaterThan(counted)
    })

    it('is made once however often it is asked for, and not at all when an id is taken', async () => {
      const source = await create()
      const ids = [capsuleIds.create()]
      const copies = ids.map(known)
      await fork(source, ids)
      await copies[0]?.write('mark', 'made before')
      expect((await fork(source, ids)).capsules.map(({ capsuleId }) => capsuleId)).toEqual(ids)
      expect(await copies[0]?.read('mark')).toBe('made before')
      const other = known(capsuleIds.create())
      expect(await failure(fork(source, [other.id, ...ids]))).toBe('conflict')
      expect(await failure(source.client.getCapsule({ capsuleId: other.id }))).toBe('capsule_not_found')
    })

    it('runs when its source is paused, which stays so', async () => {
      const source = await create()
      const witnesses = new Witnesses()
      await witnesses.start(source)
      await pause(source)
      const copy = known(capsuleIds.create())
      await fork(source, [copy.id])
      await witnesses.recall(copy)
      expect(await stateOf(source)).toBe('paused')
      await resume(source)
      await witnesses.recall(source)
    })

    onMachines('has a name, an id and random numbers of its own', async () => {
      const source = await create()
      const copies = [known(capsuleIds.create()), known(capsuleIds.create())]
      await fork(
        source,
        copies.map(({ id }) => id),
      )
      const three = [source, ...copies]
      const questions = [
        'cat /proc/sys/kernel/hostname',
        'cat /etc/machine-id',
        'head -c 32 /dev/urandom | od -An -tx1',
        'python3 -c "import random, secrets; print(random.random(), secrets.token_hex(16))"',
      ]
      for (const question of questions) {
        const answers = await Promise.all(three.map((capsule) => capsule.output(question)))
        expect(new Set(answers).size, `${question}: ${answers.join(' | ')}`).toBe(three.length)
      }
      expect(await copies[1]?.output('hostname')).toBe('copy-1')
    })
  })

  describe('a checkpoint', { timeout }, () => {
    it('brings files, memory and processes back under the same id; later processes are gone', async () => {
      const capsule = await create()
      const witnesses = new Witnesses()
      await witnesses.start(capsule)
      await capsule.output('mkdir -p work/deep && echo one > work/one && echo two > work/deep/two')
      const counted = await witnesses.count(capsule)
      const point = await checkpoint(capsule)
      expect(point.pauseWindowMs).toBeGreaterThan(0)
      await witnesses.recall(capsule)
      await capsule.output('rm -rf work; echo later > later')
      await capsule.client.signalProcess({
        capsuleId: capsule.id,
        signal: { process: { selector: { case: 'tag', value: 'counter' } }, signal: 9 },
      })
      await capsule.launch(NEVER, 'later')
      expect(await rollback(capsule, point)).toMatchObject({
        capsuleId: capsule.id,
        state: 'running',
        checkpointId: point.checkpointId,
      })
      expect(await capsule.output('cat work/one work/deep/two; ls later 2>/dev/null || echo gone')).toBe(
        'one\ntwo\ngone',
      )
      expect(await capsule.tags()).toEqual(['counter', 'memory'])
      await witnesses.recall(capsule)
      expect(await witnesses.count(capsule, counted)).toBeGreaterThan(counted)
      expect(await capsule.output('echo $KEPT')).toBe('yes')
    })

    onMachines('brings back a capsule whose system was removed', async () => {
      const capsule = await create()
      const point = await checkpoint(capsule)
      await collect(capsule.shell('exec rm -rf /usr'))
      expect((await collect(capsule.shell('true'))).end?.exitCode).not.toBe(0)
      await rollback(capsule, point)
      expect(await capsule.output('python3 -c "print(6 * 7)"')).toBe('42')
    })

    it('has the one before it as its parent, also after a rollback, and goes when it is deleted', async () => {
      const capsule = await create()
      const { client, id: capsuleId } = capsule
      expect((await client.listCheckpoints({ capsuleId })).checkpoints).toEqual([])
      const first = await checkpoint(capsule)
      const second = await checkpoint(capsule)
      await rollback(capsule, first)
      const third = await checkpoint(capsule)
      const list = async () => (await client.listCheckpoints({ capsuleId })).checkpoints
      expect((await list()).map(({ checkpointId, parentId }) => [checkpointId, parentId])).toEqual([
        [first.checkpointId, ''],
        [second.checkpointId, first.checkpointId],
        [third.checkpointId, first.checkpointId],
      ])
      const { checkpointId } = second
      expect(await client.deleteCheckpoint({ capsuleId, checkpointId })).toMatchObject({ existed: true })
      expect(await client.deleteCheckpoint({ capsuleId, checkpointId })).toMatchObject({ existed: false })
      expect((await list()).map((one) => one.checkpointId)).toEqual([first.checkpointId, third.checkpointId])
      expect(await failure(client.rollbackCapsule({ capsuleId, checkpointId }))).toBe('checkpoint_not_found')
      expect(await stateOf(capsule)).toBe('running')
    })

    it('is made once however often it is asked for', async () => {
      const capsule = await create()
      await capsule.write('file', 'then')
      const first = await checkpoint(capsule)
      await capsule.write('file', 'now')
      const { checkpointId, createdAtMs } = first
      expect(await checkpoint(capsule, checkpointId)).toMatchObject({ checkpointId, createdAtMs })
      await rollback(capsule, first)
      expect(await capsule.read('file')).toBe('then')
    })

    it('of a paused capsule, and a rollback of one, leave it paused', async () => {
      const capsule = await create()
      const witnesses = new Witnesses()
      await witnesses.start(capsule)
      await capsule.write('file', 'then')
      await pause(capsule)
      const point = await checkpoint(capsule)
      expect(await stateOf(capsule)).toBe('paused')
      await resume(capsule)
      await capsule.write('file', 'now')
      await pause(capsule)
      expect((await rollback(capsule, point))?.state).toBe('paused')
      await resume(capsule)
      expect(await capsule.read('file')).toBe('then')
      await witnesses.recall(capsule)
    })
  })

  describe('a diff', { timeout }, () => {
    const diff = async ({ client, id }: TestCapsule, from: string, to: string, path: string): Promise<FileChange[]> => {
      const request = { capsuleId: id, fromCheckpointId: from, toCheckpointId: to, path }
      return (await drain(client.diffCheckpoints(request))).flatMap(({ changes }) => changes)
    }
    const brief = (changes: readonly FileChange[]) =>
      changes.map(({ change, path, type, what }) => [change, path.replace(/^.*\/diff\//, ''), type, ...what])

    it('lists exactly what was added, changed and removed, by path, whatever the names are', async () => {
      const capsule = await create()
      await capsule.output('mkdir -p diff/gone diff/empty beside')
      await capsule.output(
        'cd diff && for name in edited grown mode removed same touched gone/inner; do echo 1 > $name; done',
      )
      await capsule.output('cd diff && ln -s same link && ln -s same same-link && mkdir file-now && chmod 644 mode')
      const { checkpointId: from } = await checkpoint(capsule)
      await capsule.output('cd diff && echo 2 > edited && echo more >> grown && chmod 755 mode && echo 1 > same')
      await capsule.output(
        'cd diff && touch touched && rm -r removed gone file-now && ln -sfn edited link && echo 1 > file-now',
      )
      await capsule.output('cd diff && mkdir new && echo 1 > new/inner; echo 1 > ../beside/other')
      const odd = ['.hidden', '-dash', ' blank ', 'line\nbreak', 'quote\'"', 'back\\slash', 'ünïcödé', '日本', '*?[x]']
      for (const name of odd) await capsule.outputOf('/bin/sh', ['-c', 'printf 12345 > "diff/$1"', 'sh', name])
      const { checkpointId: to } = await checkpoint(capsule)

      const expected = [
        ...odd.map((name) => ['added', name, 'file']),
        ['changed', 'edited', 'file', 'content'],
        ['changed', 'file-now', 'file', 'type'],
        ['removed', 'gone', 'directory'],
        ['removed', 'gone/inner', 'file'],
        ['changed', 'grown', 'file', 'content'],
        ['changed', 'link', 'symlink', 'target'],
        ['changed', 'mode', 'file', 'mode'],
        ['added', 'new', 'directory'],
        ['added', 'new/inner', 'file'],
        ['removed', 'removed', 'file'],
      ].sort(([, a = ''], [, b = '']) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      const changes = await diff(capsule, from, to, '/root/diff')
      // What else differs between paths of two types does not matter.
      const shown = brief(changes).map((row) => (row.includes('type') ? [...row.slice(0, 3), 'type'] : row))
      expect(shown).toEqual(expected)
      expect(changes.every(({ path }) => path.startsWith('/root/diff/'))).toBe(true)
      expect(changes.find(({ path }) => path.endsWith('日本'))?.size).toBe(5n)
      expect(brief(await diff(capsule, from, '', '/root/diff'))).toEqual(brief(changes))
      expect((await diff(capsule, from, to, '')).map(({ path }) => path)).toContain('/root/beside/other')
      expect(await diff(capsule, to, '', '/root/diff')).toEqual([])
      expect(await diff(capsule, from, from, '')).toEqual([])
      const back = await diff(capsule, to, from, '/root/diff/new')
      expect(brief(back)).toEqual([
        ['removed', 'new', 'directory'],
        ['removed', 'new/inner', 'file'],
      ])
      expect(await stateOf(capsule)).toBe('running')
    })

    it('shows what a paused capsule has that its checkpoint has not', async () => {
      const capsule = await create()
      await capsule.output('mkdir diff')
      const { checkpointId } = await checkpoint(capsule)
      await capsule.write('/root/diff/file', 'text')
      await pause(capsule)
      expect(brief(await diff(capsule, checkpointId, '', '/root/diff'))).toEqual([['added', 'file', 'file']])
      expect(await stateOf(capsule)).toBe('paused')
    })

    it('needs checkpoints that exist', async () => {
      const capsule = await create()
      const { checkpointId } = await checkpoint(capsule)
      expect(await failure(diff(capsule, checkpointIds.create(), '', ''))).toBe('checkpoint_not_found')
      expect(await failure(diff(capsule, checkpointId, checkpointIds.create(), ''))).toBe('checkpoint_not_found')
    })
  })

  describe('a snapshot', { timeout }, () => {
    it('starts new capsules with its files and processes and their own environment; its source stays', async () => {
      const source = await create()
      const { client } = source
      const witnesses = new Witnesses()
      await witnesses.start(source)
      await source.write('file', 'kept')
      const snapshotId = snapshotIds.create()
      const { snapshot } = await client.createSnapshot({ capsuleId: source.id, snapshotId })
      try {
        expect(snapshot).toMatchObject({ snapshotId, sourceCapsuleId: source.id, ...SHAPE })
        expect((await client.listSnapshots({})).snapshots.map((one) => one.snapshotId)).toContain(snapshotId)
        const again = await client.createSnapshot({ capsuleId: source.id, snapshotId })
        expect(again.snapshot?.createdAtMs).toBe(snapshot?.createdAtMs)
        await source.write('file', 'changed later')
        const capsule = await create({ snapshotId, envs: { KEPT: 'other', OWN: 'new' } })
        expect((await client.getCapsule({ capsuleId: capsule.id })).capsule).toMatchObject({
          state: 'running',
          snapshotId,
        })
        expect(await capsule.read('file')).toBe('kept')
        expect(await capsule.output('echo $KEPT $OWN')).toBe('other new')
        await witnesses.recall(capsule)
        await witnesses.count(capsule)
        await witnesses.recall(source)
        expect(await source.output('cat file; echo; echo $KEPT $OWN')).toBe('changed later\nyes')
        if (guest === 'machine') {
          const identity = 'cat /proc/sys/kernel/hostname /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1'
          const [mine, its] = [await capsule.output(identity), await source.output(identity)]
          for (const [index, line] of mine.split('\n').entries()) expect(line).not.toBe(its.split('\n')[index])
        }
        expect(await client.deleteSnapshot({ snapshotId })).toMatchObject({ existed: true })
        expect(await client.deleteSnapshot({ snapshotId })).toMatchObject({ existed: false })
        expect(await capsule.read('file')).toBe('kept')
        const late = { capsuleId: capsuleIds.create(), ...SHAPE, snapshotId }
        expect(await failure(client.createCapsule(late))).toBe('template_not_found')
      } finally {
        await client.deleteSnapshot({ snapshotId })
      }
    })

    it('of a paused capsule leaves it paused, and outlives it', async () => {
      const source = await create()
      const { client } = source
      await source.write('file', 'kept')
      await pause(source)
      const snapshotId = snapshotIds.create()
      await client.createSnapshot({ capsuleId: source.id, snapshotId })
      try {
        expect(await stateOf(source)).toBe('paused')
        await source.destroy()
        expect(await (await create({ snapshotId })).read('file')).toBe('kept')
      } finally {
        await client.deleteSnapshot({ snapshotId })
      }
    })
  })

  describe('the lifecycle', { timeout }, () => {
    it('answers for what does not exist with its code', async () => {
      const { client } = host()
      const capsuleId = capsuleIds.create()
      const checkpointId = checkpointIds.create()
      const snapshotId = snapshotIds.create()
      const calls: Record<string, () => Promise<unknown>> = {
        pause: () => client.pauseCapsule({ capsuleId }),
        resume: () => client.resumeCapsule({ capsuleId }),
        fork: () => client.forkCapsule({ capsuleId, copies: [{ capsuleId: capsuleIds.create(), hostname: 'copy' }] }),
        checkpoint: () => client.createCheckpoint({ capsuleId, checkpointId }),
        list: () => client.listCheckpoints({ capsuleId }),
        delete: () => client.deleteCheckpoint({ capsuleId, checkpointId }),
        rollback: () => client.rollbackCapsule({ capsuleId, checkpointId }),
        diff: () => drain(client.diffCheckpoints({ capsuleId, fromCheckpointId: checkpointId })),
        snapshot: () => client.createSnapshot({ capsuleId, snapshotId }),
      }
      for (const [name, call] of Object.entries(calls))
        expect([name, await failure(call())]).toEqual([name, 'capsule_not_found'])
      expect(await client.deleteSnapshot({ snapshotId })).toMatchObject({ existed: false })
      expect(await failure(client.createCapsule({ capsuleId, ...SHAPE, snapshotId }))).toBe('template_not_found')
    })

    it('refuses ids that are none, and a rollback to a checkpoint that is none', async () => {
      const capsule = await create()
      const { client, id: capsuleId } = capsule
      expect(await failure(client.pauseCapsule({ capsuleId: '../x' }))).toBe('invalid_request')
      expect(await failure(client.createCheckpoint({ capsuleId, checkpointId: '../x' }))).toBe('invalid_request')
      expect(await failure(client.createSnapshot({ capsuleId, snapshotId: '../x' }))).toBe('invalid_request')
      expect(await failure(client.forkCapsule({ capsuleId, copies: [{ capsuleId: '../x' }] }))).toBe('invalid_request')
      const unknown = { capsuleId, checkpointId: checkpointIds.create() }
      expect(await failure(client.rollbackCapsule(unknown))).toBe('checkpoint_not_found')
      expect(await client.deleteCheckpoint(unknown)).toMatchObject({ existed: false })
      expect(await capsule.output('echo $KEPT')).toBe('yes')
    })

    it('gives many callers at once one legal end', async () => {
      const capsule = await create()
      const witnesses = new Witnesses()
      await witnesses.start(capsule)
      const calls = Array.from({ length: 8 }, (_, index) => (index % 2 === 0 ? pause(capsule) : resume(capsule)))
      const ends = await Promise.all(calls)
      for (const [index, end] of ends.entries()) expect(end?.state).toBe(index % 2 === 0 ? 'paused' : 'running')
      await resume(capsule)
      await witnesses.recall(capsule)
    })

    it('says what keeps a running capsule awake, and nothing of a paused one', async () => {
      const capsule = await create()
      const { client, id } = capsule
      const reasons = async () => {
        const { capsules } = await client.getActivity({ capsuleIds: [id] })
        return capsules.find(({ capsuleId }) => capsuleId === id)?.reasons
      }
      await capsule.launch(NEVER, 'busy', { foreground: true })
      await expect.poll(reasons, { timeout }).toContain('process')
      const process = { selector: { case: 'tag' as const, value: 'busy' } }
      await client.signalProcess({ capsuleId: id, signal: { process, signal: 9 } })
      await expect.poll(reasons, { timeout }).not.toContain('process')
      await pause(capsule)
      expect(await reasons()).toBeUndefined()
    })

    it('collects as garbage nothing that a capsule needs', async () => {
      const [running, paused] = [await create(), await create()]
      const point = await checkpoint(running)
      await pause(paused)
      const { items } = await running.client.collectGarbage({ dryRun: true })
      for (const { name } of items) for (const { id } of [running, paused]) expect(name).not.toContain(id)
      await running.client.collectGarbage({})
      await rollback(running, point)
      await resume(paused)
      for (const capsule of [running, paused]) expect(await capsule.output('echo $KEPT')).toBe('yes')
    })
  })
}

/** For what depends on the time itself; never to wait for something to happen. */
async function passTime(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms))
}
