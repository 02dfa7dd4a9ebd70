import { createHash } from 'node:crypto'
import { cpSync, mkdtempSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, readdir, rm, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AppError, capsuleIds, noSteps, noTracer, type ReachStep, silentLogger, type Tracer } from '@wrenn/base'
import { FakeGuest } from '@wrenn/testkit'
import { createFakeEngine, FAKE_HARDWARE, type FakeEngine, FakeMachine, type FakeVmGuest } from '@wrenn/vmm'
import { GUEST_PORT } from '../capsule/guest/client.js'
import { GuestFactory } from '../capsule/guest/guest.js'
import { patienceOf } from '../capsule/guest/pulse.js'
import { Journal } from '../capsule/journal.js'
import type { Machine } from '../capsule/machine.js'
import { CapsuleManager } from '../capsule/manager.js'
import { HotPool } from '../capsule/pool/hot-pool.js'
import { ShapeStore } from '../capsule/pool/shapes.js'
import type { MakeDurable } from '../capsule/state/flusher.js'
import type { StateManifest, VerifyFiles } from '../capsule/state/states.js'
import type { OpenVault } from '../capsule/state/vault.js'
import type { CapsuleRecord, CreateCapsuleInput, EgressPolicy } from '../capsule/types.js'
import type { Learned } from '../host/names/index.js'
import { TestLoads } from './test-loads.js'

/** As small as the fake engine's memory allows: every clone is a copy here. */
export const shape = { template: 'minimal', vcpus: 1, memoryMib: 1, diskSizeMib: 1 }

export function input(change: Partial<CreateCapsuleInput> = {}): CreateCapsuleInput {
  return {
    ...shape,
    capsuleId: capsuleIds.create(),
    teamId: 'team-1',
    envs: { A: '1' },
    egress: { internet: true, allow: [], deny: [] },
    egressRevision: 0,
    hostname: 'box',
    defaultUser: '',
    defaultCwd: '',
    generation: 1,
    ...change,
  }
}

/** The one file that its image consists of. */
export const LAYER = createHash('sha256').update('layer').digest('hex')

/** Loopback addresses of this process alone: other test files, and other runs, have their guests at the same time. */
const GUEST_NETWORK = `127.${84 + (process.pid % 128)}.${(process.pid >> 7) % 256}`

/** A machine without processes: fake engine, guests on loopback addresses, plain copies instead of clones. */
export class TestMachine implements AsyncDisposable {
  readonly vms = new FakeMachine()
  readonly agents = new Map<string, FakeGuest>()
  /** By index, whose they are. */
  readonly slotsInUse = new Map<number, string>()
  /** What the network lets each slot reach. */
  readonly policies = new Map<number, EgressPolicy>()
  /** What slots have used, as a test says. */
  readonly learned = new Map<number, Learned>()
  policyFails = false
  readonly loads = new TestLoads()
  readonly engine: FakeEngine
  /** When a guest's address is free again. */
  readonly #closed = new Map<FakeVmGuest, Promise<void>>()
  /** Where host agents that start from now on have their journal. */
  journalDir: string
  bootFails = false
  /** How many of the next guests end before anything in them answers. */
  bootPanics = 0
  /** Guests take connections and answer nothing. */
  startsMuted = false
  /** Room in the pool. */
  ensureSpace = async (_bytes: number): Promise<void> => {}
  /** Where files lie on the device; a plain copy has a place of its own. */
  extents: Machine['pool']['extents'] = async () => ({
    ...{ starts: new Float64Array(), ends: new Float64Array() },
    ...{ unplacedBytes: 0, exclusiveBytes: 0 },
  })
  /** How long calls wait for a sign of their guest. */
  patience = patienceOf()
  reach: ReachStep = noSteps
  /** Of host agents that start from now on. */
  tracer: Tracer = noTracer
  makeDurable: MakeDurable = async () => ({})
  verifyFiles: VerifyFiles = async () => undefined
  /** Of host agents that start from now on. */
  openVault: OpenVault | undefined

  private constructor(readonly dir: string) {
    this.journalDir = join(dir, 'journal')
    this.engine = createFakeEngine({ machine: this.vms, onStart: (guest) => this.#serve(guest) })
  }

  static async create(): Promise<TestMachine> {
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-manager-'))
    for (const folder of ['pool/capsules', 'pool/templates', 'pool/snapshots', 'pool/layers', 'run', 'journal']) {
      await mkdir(join(dir, folder), { recursive: true })
    }
    await writeFile(join(dir, 'pool/layers', LAYER), 'layer')
    await writeFile(join(dir, 'pool/blank'), '')
    await truncate(join(dir, 'pool/blank'), shape.diskSizeMib * 2 ** 20)
    return new TestMachine(dir)
  }

  /** What a process that dies now would leave: a copy of all files, without its guests. */
  fork(): TestMachine {
    const dir = mkdtempSync(join(tmpdir(), 'wrenn-manager-'))
    cpSync(this.dir, dir, { recursive: true })
    return new TestMachine(dir)
  }

  /** A host agent over the machine, as after a (re)start. */
  async start(bootId = 'boot-1') {
    const machine = this.machine()
    const factory = new GuestFactory(machine, {
      logger: silentLogger,
      reach: (step) => this.reach(step),
      ...{ patience: this.patience, tracer: this.tracer },
    })
    const hotPool = new HotPool(factory, { max: 2, busy: () => false, logger: silentLogger, tracer: this.tracer })
    const journal = new Journal(this.journalDir, silentLogger)
    const shapes = new ShapeStore(machine, silentLogger)
    const manager = new CapsuleManager({
      ...{ machine, journal, factory, shapes, hotPool, logger: silentLogger, bootId, tracer: this.tracer },
      makeDurable: async (...call) => await this.makeDurable(...call),
      verifyFiles: async (...call) => await this.verifyFiles(...call),
      reach: (step) => this.reach(step),
      openVault: this.openVault,
    })
    await manager.adopt(await journal.open())
    return { manager, hotPool, shapes, journal }
  }

  /** A host agent with one running capsule, and no guest waiting for another. */
  async startWithCapsule() {
    const { manager, hotPool } = await this.start()
    const { capsuleId } = await manager.create(input())
    await hotPool.close()
    return { manager, capsuleId }
  }

  /** The living guest with this VM id. */
  guest(vmId: string): FakeVmGuest | undefined {
    return [...this.vms.guests.values()].find((guest) => guest.spec.id === vmId && guest.exit === undefined)
  }

  /** The guest that a record says its capsule runs on. */
  guestOf({ resources }: Pick<CapsuleRecord, 'resources'>): FakeVmGuest {
    const guest = resources === undefined ? undefined : this.guest(resources.vmId)
    if (guest === undefined) throw new Error('The capsule has no living guest.')
    return guest
  }

  /** Every guest is gone, as after a power loss. */
  async powerOff(): Promise<void> {
    for (const slot of this.slotsInUse.keys()) await this.#endGuestsAt(slot)
  }

  /** Device state as the fake engine saves it. */
  async saveState(path: string): Promise<void> {
    await writeFile(path, 'wrenn fake device state 1\n')
  }

  /** What a save of this capsule would say. */
  manifestOf(record: CapsuleRecord): Omit<StateManifest, 'format' | 'stateSha256'> {
    const { capsuleId, teamId, template, vcpus, memoryMib, diskSizeMib, image, secret, bootId } = record
    const { engine, engineVersion, kernelVersion, agentVersion } = record
    return {
      ...{ capsuleId, teamId, template, vcpus, memoryMib, diskSizeMib, image, secret, bootId },
      hardware: FAKE_HARDWARE,
      ...{ engine, engineVersion, kernelVersion, agentVersion, parentId: '', synced: true, savedAtMs: Date.now() },
    }
  }

  /** Puts `content` in the place of a file of the pool. */
  async damage(name: string, content: string): Promise<void> {
    await writeFile(join(this.dir, 'pool', name), content)
  }

  /** A directory of the pool with a file that takes `bytes`. */
  async litter(name: string, bytes: number): Promise<void> {
    await mkdir(join(this.dir, 'pool', name), { recursive: true })
    await writeFile(join(this.dir, 'pool', name, 'mem'), Buffer.alloc(bytes, 1))
  }

  /** Makes a directory look as if nobody had touched it for a day. */
  async age(name: string): Promise<void> {
    const yesterday = Date.now() / 1000 - 86_400
    await utimes(join(this.dir, 'pool', name), yesterday, yesterday)
  }

  /** Waits for what happens in the background. */
  async until<T>(probe: () => T | undefined | Promise<T | undefined>): Promise<T> {
    for (;;) {
      const found = await probe()
      if (found !== undefined) return found
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  async leftovers() {
    return {
      slots: this.slotsInUse.size,
      files: await readdir(join(this.dir, 'pool/capsules')),
      journal: await readdir(this.journalDir),
      run: await readdir(join(this.dir, 'run')),
      living: [...this.vms.guests.values()].filter((guest) => guest.exit === undefined).length,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.powerOff()
    // What was under way may still write a last file.
    await rm(this.dir, { recursive: true, force: true, maxRetries: 5 })
  }

  /** The product ends a recorded guest by its pid, which a fake one has not: here it goes with its place in the network. */
  async #endGuestsAt(slot: number): Promise<void> {
    for (const [guest, closed] of this.#closed) {
      if (guest.spec.confinement.uid !== slot) continue
      guest.end('killed')
      await closed
      this.#closed.delete(guest)
    }
  }

  async #serve(guest: FakeVmGuest): Promise<void> {
    if (this.bootFails) throw new AppError('engine_failure', 'The engine did not start.')
    if (this.bootPanics > 0) {
      this.bootPanics--
      setImmediate(() => guest.end('guest_panic', 'The guest kernel panicked.'))
      return
    }
    const agent = new FakeGuest()
    if (this.startsMuted) agent.mute()
    await agent.listen(`${GUEST_NETWORK}.${guest.spec.confinement.uid}`, GUEST_PORT)
    this.agents.set(guest.spec.id, agent)
    const closed = guest.exited.then(() => agent[Symbol.asyncDispose]())
    this.#closed.set(guest, closed)
  }

  machine(): Machine {
    const image = {
      name: 'minimal',
      aliases: ['base'],
      digest: 'image-1',
      basePath: join(this.dir, 'pool/layers', LAYER),
      agentPath: join(this.dir, 'pool/layers', LAYER),
      kernel: {
        kernelPath: join(this.dir, 'pool/layers', LAYER),
        initrdPath: join(this.dir, 'pool/layers', LAYER),
        args: [],
      },
      kernelVersion: '6.12',
      layers: [LAYER],
      sizeBytes: 1,
      createdAtMs: 1,
    }
    return {
      engine: this.engine,
      runDir: join(this.dir, 'run'),
      memory: this.loads,
      slots: {
        acquire: async (vmId) => {
          let index = 1
          while (this.slotsInUse.has(index)) index++
          this.slotsInUse.set(index, vmId)
          const address = `${GUEST_NETWORK}.${index}`
          return { index, namespace: `n${index}`, tap: 't', mac: 'm', uid: index, gid: index, guestAddress: address }
        },
        release: async (index, vmId) => {
          if (this.slotsInUse.get(index) !== vmId) return
          await this.#endGuestsAt(index)
          this.slotsInUse.delete(index)
          this.policies.delete(index)
          this.learned.delete(index)
        },
        rename: async () => {},
        guestId: (index) => `guest-${index}`,
        ended: () => [],
        noted: async () => {},
        checkPolicy: (policy) => {
          if (policy.allow.includes('127.0.0.1')) throw new AppError('invalid_request', '127.0.0.1 is never reachable.')
        },
        applyPolicy: async (index, policy) => {
          if (this.policyFails) throw new AppError('engine_failure', 'The rules could not be loaded.')
          this.policies.set(index, policy)
        },
        refused: async () => [],
        learned: async (index) => this.learned.get(index) ?? { destinations: [], isComplete: true },
      },
      cgroups: { create: async () => [], remove: async () => {} },
      pool: {
        path: join(this.dir, 'pool'),
        filesystem: 'test',
        clone: async (from, to) => await copyFile(from, to),
        usage: async () => ({ totalBytes: 1, freeBytes: 1 }),
        ensureSpace: async (bytes) => await this.ensureSpace(bytes),
        sync: async () => {},
        extents: async (paths) => await this.extents(paths),
      },
      images: {
        template: async (name) => {
          if (name === 'minimal' || name === 'base') return image
          throw new AppError('template_not_found', `There is no template ${name}.`)
        },
        fetch: async ({ reference }) => {
          throw new AppError('image_not_found', `${reference}: there is no such image.`)
        },
        import: async ({ called }) => {
          throw new AppError('image_not_usable', `${called}: it has no image.`)
        },
        list: async () => [image],
        offered: async () => [{ ...image, defaultVcpus: 1, defaultMemoryMib: 512 }],
        async *pack({ name }) {
          yield Buffer.from(name)
        },
        firstDisk: async () => join(this.dir, 'pool/blank'),
      },
    }
  }
}

/** What `leftovers` finds on a machine without capsules. */
export const nothing = { slots: 0, files: [], journal: [], run: [], living: 0 }
