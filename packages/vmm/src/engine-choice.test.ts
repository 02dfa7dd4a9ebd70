import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Engine, EngineName, Vm } from './engine.js'
import { type ChooseEngineOptions, chooseEngine, type EngineCandidate, recallEngine } from './engine-choice.js'
import { createFakeEngine, type FakeVmGuest } from './fake/fake-engine.js'

type Behaviour = 'up' | 'panics' | 'crawls' | 'refuses' | 'hangs' | 'ends' | 'slow'

/** A candidate under another engine's name that counts how often it is tried. */
function candidate(name: EngineName, behaviour: Behaviour, version = '1') {
  const guests: FakeVmGuest[] = []
  const fake = createFakeEngine({
    version,
    onStart(guest) {
      guests.push(guest)
      if (behaviour === 'up') guest.console += 'wrenn-probe-ok\n'
      // Its engine takes as long to start as its guest may take after a quick start.
      if (behaviour === 'slow') {
        void delay(300).then(() => {
          guest.console += 'wrenn-probe-ok\n'
        })
      }
      if (behaviour === 'panics') guest.console += 'Kernel panic - not syncing: No working init found.\n'
      if (behaviour === 'ends') guest.end('engine_failure', 'It fell over.')
    },
  })
  const engine: Engine = {
    name,
    version: () => fake.version(),
    newHardware: () => fake.newHardware(),
    obstacle: (hardware) => fake.obstacle(hardware),
    boot: (spec): Promise<Vm> => {
      if (behaviour === 'refuses') return Promise.reject(new AppError('engine_failure', 'Not on this machine.'))
      if (behaviour === 'slow') return delay(80).then(() => fake.boot(spec))
      if (behaviour === 'hangs') return fake.boot(spec).then((vm) => late.promise.then(() => vm))
      return fake.boot(spec)
    },
    restore: (spec, options) => fake.restore(spec, options),
    adopt: (record) => fake.adopt(record),
  }
  let release: () => void = () => {}
  const late = {
    promise: new Promise<void>((resolve) => {
      release = resolve
    }),
  }
  const made: EngineCandidate & { readonly guests: FakeVmGuest[]; arrive(): void } = {
    engine,
    startWithinMs: 500,
    deadlineMs: 100,
    guests,
    arrive: () => release(),
  }
  return made
}

let folder: string
let options: Omit<ChooseEngineOptions, 'candidates'>

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'wrenn-choice-'))
  await writeFile(join(folder, 'boot_id'), 'boot-one\n')
  options = {
    kernel: { kernelPath: '/pool/vmlinuz', initrdPath: '/pool/initrd' },
    scratchDir: join(folder, 'scratch'),
    cachePath: join(folder, 'engine.json'),
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    bootIdPath: join(folder, 'boot_id'),
  }
})
afterEach(() => rm(folder, { recursive: true }))

describe('chooseEngine', () => {
  it('takes the best that boots a guest and does not try the rest', async () => {
    const kvm = candidate('qemu-kvm', 'up')
    const tcg = candidate('qemu-tcg', 'up')
    const choice = await chooseEngine({ ...options, candidates: [kvm, tcg] })
    expect(choice.engine.name).toBe('qemu-kvm')
    expect(choice.candidates).toMatchObject([
      { name: 'qemu-kvm', ok: true },
      { name: 'qemu-tcg', ok: false, reason: expect.stringContaining('Not tried') },
    ])
    expect(tcg.guests).toEqual([])
  })

  it("counts the kernel's complaint about a missing init as success", async () => {
    const choice = await chooseEngine({ ...options, candidates: [candidate('qemu-kvm', 'panics')] })
    expect(choice.engine.name).toBe('qemu-kvm')
  })

  it.each(['crawls', 'refuses', 'ends'] as const)('passes over an engine that %s, and says why', async (behaviour) => {
    const kvm = candidate('qemu-kvm', behaviour)
    const choice = await chooseEngine({ ...options, candidates: [kvm, candidate('qemu-tcg', 'up')] })
    expect(choice.engine.name).toBe('qemu-tcg')
    expect(choice.candidates[0]).toMatchObject({ ok: false, reason: expect.stringMatching(/did not come up: \S/) })
    expect(kvm.guests.every((guest) => guest.exit !== undefined)).toBe(true)
    expect(await readdir(options.scratchDir)).toEqual([])
  })

  it('asks only once per boot of the host, kernel and version', async () => {
    const kvm = candidate('qemu-kvm', 'crawls')
    const tcg = candidate('qemu-tcg', 'up')
    const choose = () => chooseEngine({ ...options, candidates: [kvm, tcg] })
    const first = await choose()
    expect(await choose()).toEqual(first)
    expect([kvm.guests.length, tcg.guests.length]).toEqual([1, 1])
    await writeFile(join(folder, 'boot_id'), 'boot-two\n')
    await choose()
    expect([kvm.guests.length, tcg.guests.length]).toEqual([2, 2])
    const newer = candidate('qemu-tcg', 'up', '2')
    await chooseEngine({ ...options, candidates: [kvm, newer] })
    expect([kvm.guests.length, newer.guests.length]).toEqual([2, 1])
  })

  it('does not remember that emulation failed, because that passes', async () => {
    const choose = (behaviour: Behaviour) =>
      chooseEngine({ ...options, candidates: [candidate('qemu-tcg', behaviour)] })
    await expect(choose('crawls')).rejects.toMatchObject({ code: 'engine_failure' })
    expect((await choose('up')).engine.name).toBe('qemu-tcg')
  })

  it('does not boot where something stands in the way already', async () => {
    const kvm = { ...candidate('qemu-kvm', 'up'), obstacle: () => Promise.resolve('There is no /dev/kvm.') }
    const choice = await chooseEngine({ ...options, candidates: [kvm, candidate('qemu-tcg', 'up')] })
    expect(choice.candidates[0]).toEqual({ name: 'qemu-kvm', ok: false, reason: 'There is no /dev/kvm.' })
    expect(kvm.guests).toEqual([])
  })

  it('probes nothing when told what to take', async () => {
    const kvm = candidate('qemu-kvm', 'up')
    const tcg = candidate('qemu-tcg', 'crawls')
    const choice = await chooseEngine({ ...options, candidates: [kvm, tcg], override: 'qemu-tcg' })
    expect(choice.engine.name).toBe('qemu-tcg')
    expect([...kvm.guests, ...tcg.guests]).toEqual([])
    const unknown = chooseEngine({ ...options, candidates: [kvm, tcg], override: 'firecracker' })
    await expect(unknown).rejects.toMatchObject({ code: 'invalid_config' })
  })

  it('does not hang on an engine that hangs while it starts, and ends what arrives late', async () => {
    const kvm = candidate('qemu-kvm', 'hangs')
    const choice = await chooseEngine({ ...options, candidates: [kvm, candidate('qemu-tcg', 'up')] })
    expect(choice.engine.name).toBe('qemu-tcg')
    expect(kvm.guests).toMatchObject([{ exit: undefined }])
    kvm.arrive()
    await expect.poll(() => kvm.guests.every((guest) => guest.exit)).toBe(true)
  })

  it('takes a machine on which everything is slow for slow, not for one without the engine', async () => {
    const choice = await chooseEngine({ ...options, candidates: [candidate('qemu-kvm', 'slow')] })
    expect(choice.engine.name).toBe('qemu-kvm')
  })

  it('survives a damaged cache', async () => {
    await writeFile(options.cachePath, '{"bootId":')
    const choice = await chooseEngine({ ...options, candidates: [candidate('qemu-tcg', 'up')] })
    expect(choice.engine.name).toBe('qemu-tcg')
  })
})

describe('recallEngine', () => {
  const obstacle = () => Promise.resolve('There is no /dev/kvm.')

  it('answers what was chosen since the host started, without booting anything', async () => {
    const candidates = [candidate('qemu-kvm', 'crawls'), candidate('qemu-tcg', 'up')]
    const { reason, candidates: verdicts } = await chooseEngine({ ...options, candidates })
    const recalled = await recallEngine({ ...options, candidates })
    expect(recalled).toEqual({ name: 'qemu-tcg', reason, isProven: true, candidates: verdicts })
    expect(candidates.map(({ guests }) => guests.length)).toEqual([1, 1])
  })

  it('names the engine that a first start will try, and writes nothing', async () => {
    const kvm = { ...candidate('qemu-kvm', 'up'), obstacle }
    const recalled = await recallEngine({ ...options, candidates: [kvm, candidate('qemu-tcg', 'up')] })
    expect(recalled).toMatchObject({ name: 'qemu-tcg', isProven: false })
    expect(recalled.candidates).toMatchObject([
      { name: 'qemu-kvm', ok: false, reason: 'There is no /dev/kvm.' },
      { name: 'qemu-tcg', ok: false, reason: expect.stringContaining('Not tried since') },
    ])
    expect(await readdir(folder)).toEqual(['boot_id'])
  })

  it('does not answer for another boot of the host', async () => {
    const candidates = [candidate('qemu-tcg', 'up')]
    await chooseEngine({ ...options, candidates })
    await writeFile(join(folder, 'boot_id'), 'boot-two\n')
    expect(await recallEngine({ ...options, candidates })).toMatchObject({ name: 'qemu-tcg', isProven: false })
  })

  it('says why none can run', async () => {
    const recalled = await recallEngine({ ...options, candidates: [{ ...candidate('qemu-kvm', 'up'), obstacle }] })
    expect(recalled).toMatchObject({ name: undefined, reason: 'qemu-kvm: There is no /dev/kvm.' })
  })

  it('says that the engine is set by hand', async () => {
    const candidates = [candidate('qemu-tcg', 'up')]
    const recalled = await recallEngine({ ...options, candidates, override: 'qemu-tcg' })
    expect(recalled).toMatchObject({ name: 'qemu-tcg', reason: 'Set by hand, not probed.', isProven: true })
  })
})
