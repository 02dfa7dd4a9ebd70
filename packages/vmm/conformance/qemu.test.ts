import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chown,
  copyFile,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  rmdir,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { waitFor } from '@wrenn/base'
import { describeEngine, type EngineAdapter } from '@wrenn/testkit'
import type { Vm, VmExitCause, VmRecord, VmSpec } from '@wrenn/vmm'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createQemuEngine } from '../src/qemu/engine.js'
import { runState } from '../src/qemu/migration.js'
import { sampleProcess } from '../src/qemu/process.js'
import { QmpClient } from '../src/qemu/qmp.js'
import { makeTestGuest } from './test-guest.js'
import { missing, TestHost } from './test-host.js'

const run = promisify(execFile)

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
  const started: { readonly vm: Vm; readonly spec: VmSpec }[] = []
  const mounts: string[] = []
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

  async function guest(
    change: (spec: VmSpec) => VmSpec = (spec) => spec,
    prepare: (spec: VmSpec) => Promise<void> = () => Promise.resolve(),
  ): Promise<{ vm: Vm; spec: VmSpec }> {
    const spec = change(await adapter.makeSpec())
    await prepare(spec)
    const vm = await adapter.engine.boot(spec)
    started.push({ vm, spec })
    return { vm, spec }
  }

  async function mountTmpfs(folder: string, size: string): Promise<void> {
    await mkdir(folder)
    await run('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=0755`, 'wrenn-test', folder])
    mounts.push(folder)
  }

  function qemuOnly(): void {
    afterEach(async () => {
      for (const { vm } of started) await vm.kill()
      for (const folder of mounts.splice(0)) {
        await run('umount', [folder])
        await rmdir(folder)
      }
      for (const { spec } of started.splice(0)) await host.dropSpec(spec)
    })

    it('gives its process an identity of its own and no rights', async () => {
      const { vm, spec } = await guest()
      const { pid } = vm.record
      const status = await readFile(`/proc/${pid}/status`, 'utf8')
      const field = (name: string) => new RegExp(`^${name}:[ \\t]*(.*)$`, 'm').exec(status)?.[1]?.trim()
      const { uid, gid, cgroups } = spec.confinement
      expect(field('Uid')?.split('\t')).toEqual(Array(4).fill(String(uid)))
      expect(field('Gid')?.split('\t')).toEqual(Array(4).fill(String(gid)))
      expect(field('Groups')).toBe('')
      for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) expect(field(set)).toMatch(/^0+$/)
      expect(field('NoNewPrivs')).toBe('1')
      expect(field('Seccomp')).toBe('2')
      expect(field('Umask')).toBe('0077')
      expect(await readFile(`/proc/${pid}/oom_score_adj`, 'utf8')).toBe('500\n')
      expect(await readFile(`/proc/${pid}/limits`, 'utf8')).toMatch(/Max core file size\s+0\s+0/)
      for (const cgroup of cgroups) {
        expect((await readFile(`${cgroup}/cgroup.procs`, 'utf8')).split('\n')).toContain(String(pid))
      }
      expect(await readlink(`/proc/${pid}/ns/net`)).not.toBe(await readlink('/proc/self/ns/net'))
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
      expect(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3]).toBe(String(pid)) // leads its own session
      expect(await readFile(`/proc/${pid}/environ`, 'utf8')).toBe(
        'PATH=/usr/sbin:/usr/bin:/sbin:/bin\0LC_ALL=C\0PWD=/\0',
      )
    })

    it('shows the guest its drives by role', async () => {
      const { spec } = await guest()
      const serials = await host.inGuest(spec, 'for d in /sys/block/vd*; do echo $(cat $d/serial) $(cat $d/ro); done')
      expect(serials.split('\n').sort()).toEqual(['base 1', 'data 0'])
    })

    it('makes two restores of one snapshot differ in what they draw at random', async () => {
      const { vm, spec } = await guest()
      const draw = 'head -c 16 /dev/urandom | hexdump -ve \'1/1 "%02x"\''
      await host.inGuest(spec, draw)
      const statePath = `${spec.memoryPath}.state`
      await vm.pause()
      await vm.save(statePath)
      const drawn = new Set<string>()
      for (let copy = 1; copy <= 2; copy++) {
        const clone = await adapter.makeSpec()
        await copyFile(spec.memoryPath, clone.memoryPath)
        await chown(clone.memoryPath, spec.confinement.uid, spec.confinement.gid)
        const restored = await adapter.engine.restore(clone, { statePath })
        started.push({ vm: restored, spec: clone })
        drawn.add(await host.inGuest(clone, draw))
        expect(await host.inGuest(clone, 'dmesg | grep -c "crng reseeded due to virtual machine fork"')).toBe('1')
      }
      expect(drawn.size).toBe(2)
    })

    it('keeps a flooded console within bounds', async () => {
      const { vm, spec } = await guest()
      await host.inGuest(
        spec,
        'i=0; while [ $i -lt 3000 ]; do echo "flood $i 0123456789012345678901234567890" >/dev/ttyS0; i=$((i+1)); done',
      )
      const tail = await vm.consoleTail()
      expect(tail.length).toBeLessThanOrEqual(65_536)
      expect(tail).toContain('flood 2999')
      expect(await vm.consoleTail(20)).toHaveLength(20)
      expect((await stat(`${spec.runDir}/console.tail`)).size).toBeLessThanOrEqual(65_536)
      expect((await vm.kill()).consoleTail).toContain('flood 2999')
    })

    it('tells how a guest ended while nobody looked', async () => {
      for (const cause of adapter.guestCauses) {
        const { vm, spec } = await guest()
        await host.inGuest(spec, 'true')
        await vm.detach()
        await host.endGuest(spec, `sleep 1; ${ENDS[cause]}`)
        const look = async () => ((await queryStatus(spec)) === 'shutdown' ? true : undefined)
        await waitFor(look, { timeoutMs: 30_000, what: 'the guest to end' })
        const adopted = await adapter.engine.adopt(vm.record)
        expect((await adopted?.exited)?.cause).toBe(cause)
      }
    })

    it('notices at once when its process is killed from outside, adopted or not', async () => {
      const { vm } = await guest()
      process.kill(vm.record.pid, 'SIGKILL')
      expect(await vm.exited).toMatchObject({ cause: 'killed', signal: 'SIGKILL' })
      const { vm: other } = await guest()
      await other.detach()
      const adopted = await adapter.engine.adopt(other.record)
      process.kill(other.record.pid, 'SIGKILL')
      expect(await adopted?.exited).toMatchObject({ cause: 'unknown' })
    })

    it('reports a full disk when it saves, and keeps the guest usable', async () => {
      const { vm, spec } = await guest()
      const nonce = await writeNonce(spec)
      const folder = `${spec.memoryPath}.full`
      await mountTmpfs(folder, '128k')
      await vm.pause()
      await expect(vm.save(`${folder}/state`)).rejects.toMatchObject({ code: 'disk_full' })
      expect(await readdir(folder)).toEqual([])
      expect((await vm.save(`${spec.memoryPath}.state`)).bytes).toBeGreaterThan(100_000)
      await vm.resume()
      expect(await host.inGuest(spec, 'cat /ram/nonce')).toBe(nonce)
    })

    it('holds a guest that finds the disk full, and lets it go on when there is space', async () => {
      const folder = `/tmp/wrenn-vmm-full-${process.pid}`
      await mountTmpfs(folder, '4m')
      const disk = `${folder}/disk.raw`
      const { vm, spec } = await guest(
        (spec) => ({ ...spec, disk: { path: disk } }),
        async (spec) => {
          await writeFile(disk, '')
          await truncate(disk, 32 * 1024 * 1024)
          await chown(disk, spec.confinement.uid, spec.confinement.gid)
        },
      )
      await host.endGuest(spec, 'dd if=/dev/zero of=/dev/vdb bs=1M count=16 conv=fsync && echo written >/ram/dd')
      await waitFor(async () => ((await vm.status()) === 'paused' ? true : undefined), {
        timeoutMs: 30_000,
        what: 'the guest to be held',
      })
      await run('mount', ['-o', 'remount,size=64m', folder])
      const written = async () => ((await host.inGuest(spec, 'cat /ram/dd')) === 'written' ? true : undefined)
      await waitFor(written, { timeoutMs: 30_000, what: 'the write to end' })
      await vm.kill()
      await rm(disk)
    })
  }

  async function queryStatus(spec: VmSpec): Promise<string> {
    const qmp = await QmpClient.connect(`${spec.runDir}/monitor.sock`)
    try {
      return await runState(qmp)
    } finally {
      qmp.close()
    }
  }

  beforeAll(async () => {
    host = await TestHost.create(await makeTestGuest(process.env.WRENN_TEST_CACHE ?? '/tmp/wrenn-test-cache'))
  })
  afterAll(() => host[Symbol.asyncDispose]())

  describeEngine(title, () => adapter)
  describe(`${title}, on its own`, () => qemuOnly())
}
