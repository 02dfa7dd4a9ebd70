import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describeEngine, type EngineAdapter } from '@wrenn/testkit'
import type { Vm, VmSpec } from '@wrenn/vmm'
import { createFakeEngine, FAKE_HARDWARE, type FakeVmGuest } from '../src/fake/fake-engine.js'

const engine = createFakeEngine()

function guestOf(vm: Vm): FakeVmGuest {
  const guest = engine.machine.find(vm.record)
  if (!guest) throw new Error('the guest is there')
  return guest
}

async function makeSpec(): Promise<VmSpec> {
  const folder = await mkdtemp(join(tmpdir(), 'wrenn-fake-'))
  const runDir = join(folder, 'run')
  await mkdir(runDir)
  await writeFile(join(folder, 'disk.raw'), '')
  return {
    id: `cl-${randomBytes(4).toString('hex')}`,
    hardware: FAKE_HARDWARE,
    vcpus: 1,
    memoryMib: 64,
    kernel: { kernelPath: '/nowhere', initrdPath: '/nowhere', args: [] },
    layers: [],
    disk: { path: join(folder, 'disk.raw') },
    memoryPath: join(folder, 'mem'),
    network: undefined,
    runDir,
    confinement: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, cgroups: [] },
  }
}

const adapter: EngineAdapter = {
  engine,
  makeSpec,
  dropSpec: (spec) => rm(dirname(spec.runDir), { recursive: true }),
  breakSpec: (spec) => ({
    spec: { ...spec, disk: { path: '/nowhere/disk' } },
    lastWords: /cannot open \/nowhere\/disk/,
  }),
  async writeNonce(vm) {
    const nonce = randomBytes(16).toString('hex')
    await guestOf(vm).writeRam({ nonce })
    return nonce
  },
  readNonce: async (vm) => String((await guestOf(vm).readRam()).nonce),
  endGuest: async (vm, cause) => {
    guestOf(vm).end(cause)
  },
  guestCauses: ['guest_shutdown', 'guest_panic', 'guest_reset', 'oom_killed'],
  isRunning: (record) => Promise.resolve(engine.machine.find(record) !== undefined),
  bootElsewhere: undefined,
}

describeEngine('the fake engine', () => adapter)
