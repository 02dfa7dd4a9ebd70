import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { chown, copyFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { errorText } from '@wrenn/base'
import type { Hardware, Vm, VmSpec } from '@wrenn/vmm'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createQemuEngine } from '../src/qemu/engine.js'
import { hardwareOfVersion, PROVEN_MACHINES } from '../src/qemu/hardware.js'
import { QemuProgram } from '../src/qemu/program.js'
import { makeTestGuest } from './test-guest.js'
import { missing, TestHost } from './test-host.js'

const run = promisify(execFile)
const cache = process.env.WRENN_TEST_CACHE ?? '/tmp/wrenn-test-cache'

interface Installed {
  readonly name: string
  readonly binary: string
  readonly machines: readonly string[]
}

/** Where each QEMU comes from: the host's own, and those of Debian suites, unpacked beside it. */
const sources: readonly { readonly from: string; readonly find: () => Promise<string> }[] = [
  { from: 'this host', find: async () => 'qemu-system-x86_64' },
  { from: 'Debian trixie', find: () => unpacked('trixie') },
  { from: 'Debian sid', find: () => unpacked('sid') },
]

async function unpacked(suite: string): Promise<string> {
  const script = fileURLToPath(new URL('../../../scripts/unpack-qemu.mjs', import.meta.url))
  return (await run(process.execPath, [script, suite, `${cache}/qemu`])).stdout.trim()
}

async function installed(binary: string): Promise<Installed> {
  const program = new QemuProgram(binary, 'tcg')
  const can = async (machine: string) => (await program.obstacle({ machine, cpu: 'tcg-1', layout: 1 })) === undefined
  const machines: string[] = []
  for (const machine of PROVEN_MACHINES) if (await can(machine)) machines.push(machine)
  return { name: await program.version(), binary, machines }
}

const lacks = await missing()
const found: Installed[] = []
const absent: string[] = []
for (const { from, find } of lacks.length > 0 ? [] : sources) {
  try {
    found.push(await installed(await find()))
  } catch (error) {
    absent.push(`${from}: ${errorText(error).trim().split('\n').at(-1)}`)
  }
}

/** Pairs of which the loader refuses what the saver makes, for reasons of QEMU's own; they fail here as soon as that changes. */
const REFUSED = [
  {
    // Every virtio queue of a guest that 10.0.13 boots has 1024 entries, whatever `queue-size` says; 11.1 checks it.
    ...{ saver: 'qemu 10.0.13', loader: 'qemu 11.1.3' },
    says: /vring\.num 1024 exceeds allocated max 256/,
  },
]

const all = found.flatMap((saver) =>
  found.flatMap((loader) =>
    saver.machines
      .filter((machine) => loader.machines.includes(machine))
      .map((machine) => ({ saver, loader, machine, refused: refusal(saver, loader) })),
  ),
)
const pairs = all.filter(({ refused }) => refused === undefined)
const refusedPairs = all.filter(({ refused }) => refused !== undefined)

function refusal(saver: Installed, loader: Installed): RegExp | undefined {
  return REFUSED.find((known) => known.saver === saver.name && known.loader === loader.name)?.says
}

for (const why of [...lacks.map((tool) => `this machine lacks ${tool}`), ...absent]) {
  describe.skip(`A saved state between versions of QEMU: not run, ${why}`, () => {
    it('runs where it is present', () => {})
  })
}

describe.skipIf(lacks.length > 0)('A saved state between versions of QEMU', () => {
  let host: TestHost
  const started: { readonly vm: Vm; readonly spec: VmSpec }[] = []
  const saved = new Map<string, Promise<{ readonly spec: VmSpec; readonly nonce: string; readonly cpu: string }>>()

  beforeAll(async () => {
    host = await TestHost.create(await makeTestGuest(cache))
  })
  afterEach(async () => {
    for (const { vm, spec } of started.splice(0)) {
      await vm.kill()
      await host.dropSpec(spec)
    }
  })
  afterAll(() => host[Symbol.asyncDispose]())

  const statePath = (spec: VmSpec): string => `${spec.memoryPath}.state`
  const cpuOf = (spec: VmSpec): Promise<string> =>
    host.inGuest(spec, 'grep -E "^(vendor_id|cpu family|model|stepping|flags)" /proc/cpuinfo')

  /** A guest that one version boots and saves; once for all versions that load it. */
  function save({ name, binary }: Installed, hardware: Hardware) {
    const key = `${name} ${hardware.machine}`
    const making = saved.get(key) ?? bootAndSave(binary, hardware)
    saved.set(key, making)
    return making
  }

  async function bootAndSave(binary: string, hardware: Hardware) {
    const spec = await host.makeSpec({ hardware })
    const vm = await createQemuEngine({ accelerator: 'tcg', binary }).boot(spec)
    const nonce = await host.inGuest(
      spec,
      'head -c 16 /dev/urandom | hexdump -ve \'1/1 "%02x"\' >/ram/nonce; cat /ram/nonce',
    )
    const cpu = await cpuOf(spec)
    await vm.pause()
    await vm.save(statePath(spec))
    await vm.kill()
    return { spec, nonce, cpu }
  }

  /** Starts what was saved, on a copy of its files. */
  async function load(binary: string, from: VmSpec, hardware: Hardware): Promise<VmSpec> {
    const copy = await host.makeSpec({ hardware })
    const files = [
      [from.memoryPath, copy.memoryPath],
      [from.disk.path, copy.disk.path],
    ] as const
    for (const [source, target] of files) {
      await copyFile(source, target, constants.COPYFILE_FICLONE)
      await chown(target, copy.confinement.uid, copy.confinement.gid)
    }
    const vm = await createQemuEngine({ accelerator: 'tcg', binary }).restore(copy, { statePath: statePath(from) })
    started.push({ vm, spec: copy })
    return copy
  }

  it.each(pairs.map((pair) => [pair.saver.name, pair.loader.name, pair.machine, pair] as const))(
    'of %s goes on in %s on %s, and again after it was saved there',
    async (_saver, _loader, machine, pair) => {
      const hardware = { machine, cpu: 'tcg-1', layout: 1 }
      const { spec, nonce, cpu } = await save(pair.saver, hardware)
      let from = spec
      for (const round of ['first', 'second']) {
        from = await load(pair.loader.binary, from, hardware)
        expect(await host.inGuest(from, 'cat /ram/nonce')).toBe(nonce)
        expect(await cpuOf(from)).toBe(cpu)
        // Every device that has state of its own: disk, entropy, timer, network (the question itself).
        const writes = 'dd if=/dev/zero of=/dev/vdb bs=64k count=16 conv=fsync 2>/dev/null'
        const answer = await host.inGuest(
          from,
          `${writes} && head -c 8 /dev/hwrng | wc -c && sleep 0.1 && echo ${round}`,
        )
        expect(answer).toBe(`8\n${round}`)
        const vm = started.at(-1)?.vm
        await vm?.pause()
        await vm?.save(statePath(from))
      }
    },
  )

  it.each(refusedPairs.map((pair) => [pair.saver.name, pair.loader.name, pair.machine, pair] as const))(
    'of %s is refused by %s on %s with the reason',
    async (_saver, _loader, machine, { saver, loader, refused }) => {
      const hardware = { machine, cpu: 'tcg-1', layout: 1 }
      const { spec } = await save(saver, hardware)
      await expect(load(loader.binary, spec, hardware)).rejects.toMatchObject({
        code: 'state_not_loadable',
        message: expect.stringMatching(refused ?? /^$/),
      })
    },
  )

  it.each(
    found.flatMap((loader) =>
      found[0] === undefined ? [] : [[found[0].name, loader.name, found[0], loader] as const],
    ),
  )('of before states had hardware on record, by %s, goes on in %s', async (_saver, _loader, saver, loader) => {
    const old = { machine: 'q35', cpu: 'max', layout: 1 }
    const hardware = hardwareOfVersion('qemu-tcg', `${saver.name} layout 1`)
    if (hardware === undefined || refusal(saver, loader) !== undefined) return
    const { spec, nonce } = await save(saver, old)
    const loaded = await load(loader.binary, spec, hardware)
    expect(await host.inGuest(loaded, 'cat /ram/nonce')).toBe(nonce)
  })

  it('gives a guest the same CPU in every version', async () => {
    const seen = new Set<string>()
    for (const one of found) {
      for (const machine of one.machines) seen.add((await save(one, { machine, cpu: 'tcg-1', layout: 1 })).cpu)
    }
    expect([...seen]).toHaveLength(1)
  })
})
