import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { describeEngine, type EngineAdapter } from '@wrenn/testkit'
import type { VmExitCause, VmRecord, VmSpec } from '@wrenn/vmm'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { createQemuEngine } from '../src/qemu/engine.js'
import { sampleProcess } from '../src/qemu/process.js'
import { makeTestGuest } from './test-guest.js'
import { missing, TestHost } from './test-host.js'

/** Scripts that end the test guest from inside; `-f` because busybox is started by a script and has no init. */
const ENDS: Partial<Record<VmExitCause, string>> = {
  guest_shutdown: 'poweroff -f',
  guest_reset: 'reboot -f',
  guest_panic: 'echo c >/proc/sysrq-trigger',
}

const lacks = await missing()
const title = 'QEMU with emulated CPUs (qemu-tcg)'

if (lacks.length > 0) {
  describe.skip(`${title}: not run, this machine lacks ${lacks.join(', ')}`, () => {
    it('runs where these are present', () => {})
  })
} else {
  let host: TestHost
  const specs = new Map<string, VmSpec>()

  function specOf(record: VmRecord): VmSpec {
    const spec = specs.get(record.runDir)
    if (!spec) throw new Error('every guest comes from makeSpec')
    return spec
  }

  async function writeNonce(spec: VmSpec): Promise<string> {
    return host.inGuest(spec, 'head -c 16 /dev/urandom | hexdump -ve \'1/1 "%02x"\' >/ram/nonce; cat /ram/nonce')
  }

  async function bootElsewhere(spec: VmSpec) {
    const script = fileURLToPath(new URL('boot-elsewhere.ts', import.meta.url))
    const node = ['--conditions=wrenn-source', '--import', 'tsx', script, JSON.stringify(spec)]
    const child = spawn(process.execPath, node, { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = (await once(createInterface(child.stdout), 'line')) as [string] // what readline emits
    const nonce = await writeNonce(spec)
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
    return { record: JSON.parse(line) as VmRecord, nonce } // printed by our own script
  }

  const adapter: EngineAdapter = {
    engine: createQemuEngine({ accelerator: 'tcg' }),
    async makeSpec() {
      const spec = await host.makeSpec()
      specs.set(spec.runDir, spec)
      return spec
    },
    dropSpec: (spec) => host.dropSpec(spec),
    breakSpec: (spec) => ({
      spec: { ...spec, disk: { path: `${spec.disk.path}.missing` } },
      lastWords: /Could not open .*disk\.raw\.missing.*No such file/,
    }),
    writeNonce: (vm) => writeNonce(specOf(vm.record)),
    readNonce: (vm) => host.inGuest(specOf(vm.record), 'cat /ram/nonce'),
    endGuest: (vm, cause) => host.endGuest(specOf(vm.record), ENDS[cause] ?? ''),
    guestCauses: ['guest_shutdown', 'guest_reset', 'guest_panic'],
    async isRunning(record) {
      const sample = await sampleProcess(record.pid)
      if (sample?.startTicks !== record.pidStartTicks) return false
      return (await readFile(`/proc/${record.pid}/cmdline`, 'utf8')).includes(record.id)
    },
    bootElsewhere,
  }

  beforeAll(async () => {
    host = await TestHost.create(await makeTestGuest(process.env.WRENN_TEST_CACHE ?? '/tmp/wrenn-test-cache'))
  })
  afterAll(() => host[Symbol.asyncDispose]())

  describeEngine(title, () => adapter)
}
