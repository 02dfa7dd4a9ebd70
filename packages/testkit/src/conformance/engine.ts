import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { chown, copyFile, mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { AppError } from '@wrenn/base'
import type { Engine, Vm, VmExitCause, VmRecord, VmSpec } from '@wrenn/vmm'
import { afterEach, describe, expect, it } from 'vitest'

/** What an engine's own test supplies, so that one suite runs against every engine. */
export interface EngineAdapter {
  readonly engine: Engine
  /** A spec with fresh directories and an empty disk; `memoryPath` does not exist yet. */
  makeSpec(): Promise<VmSpec>
  /** Frees what belongs to the spec: files, network. Called after each test. */
  dropSpec(spec: VmSpec): Promise<void>
  /** The same spec with something the engine cannot run, and what its last words must contain. */
  breakSpec(spec: VmSpec): { readonly spec: VmSpec; readonly lastWords: RegExp }
  /** Waits until the guest is up, puts a fresh nonce into guest RAM (no file) and returns it. */
  writeNonce(vm: Vm): Promise<string>
  /** Asks the running guest for its nonce. */
  readNonce(vm: Vm): Promise<string>
  /** Makes the guest end from inside; the causes it can bring about. */
  endGuest(vm: Vm, cause: VmExitCause): Promise<void>
  readonly guestCauses: readonly VmExitCause[]
  /** True while anything that runs the guest is there: a process, for engines that have one. */
  isRunning(record: VmRecord): Promise<boolean>
  /**
   * Boots a guest from another process that is then killed with `kill -9`.
   * `undefined` for engines that live inside their process.
   */
  readonly bootElsewhere: ((spec: VmSpec) => Promise<{ readonly record: VmRecord; readonly nonce: string }>) | undefined
}

const CAPSULE_FILES = ['memoryPath', 'disk'] as const

/** Clones the files of a stopped guest for `to`, as the host agent does. */
async function cloneFiles(from: VmSpec, to: VmSpec): Promise<void> {
  for (const file of CAPSULE_FILES) {
    const [source, target] = file === 'disk' ? [from.disk.path, to.disk.path] : [from.memoryPath, to.memoryPath]
    await copyFile(source, target, constants.COPYFILE_FICLONE)
    await chown(target, to.confinement.uid, to.confinement.gid)
  }
}

/** One suite for every engine; call it inside a test file. */
export function describeEngine(title: string, adapter: () => EngineAdapter): void {
  describe(title, () => {
    const specs: VmSpec[] = []
    const vms: Vm[] = []

    async function newSpec(): Promise<VmSpec> {
      const spec = await adapter().makeSpec()
      specs.push(spec)
      return spec
    }
    function keep(vm: Vm): Vm {
      vms.push(vm)
      return vm
    }
    async function boot(spec?: VmSpec): Promise<{ readonly vm: Vm; readonly spec: VmSpec }> {
      const used = spec ?? (await newSpec())
      return { vm: keep(await adapter().engine.boot(used)), spec: used }
    }
    async function saved(vm: Vm, spec: VmSpec): Promise<string> {
      const statePath = join(dirname(spec.memoryPath), 'state')
      await vm.pause()
      await vm.save(statePath)
      return statePath
    }
    /** Restores a clone of what `from` left. */
    async function restoreClone(from: VmSpec, statePath: string, paused = false): Promise<{ vm: Vm; spec: VmSpec }> {
      const spec = await newSpec()
      await cloneFiles(from, spec)
      return { vm: keep(await adapter().engine.restore(spec, { statePath, paused })), spec }
    }

    afterEach(async () => {
      for (const vm of vms.splice(0)) await vm.kill()
      for (const spec of specs.splice(0)) await adapter().dropSpec(spec)
    })

    it('boots a guest that runs and answers', async () => {
      const { vm, spec } = await boot()
      expect(await vm.status()).toBe('running')
      const nonce = await adapter().writeNonce(vm)
      expect(await adapter().readNonce(vm)).toBe(nonce)
      expect(vm.record).toMatchObject({ engine: adapter().engine.name, id: spec.id, runDir: spec.runDir })
      expect((await stat(spec.memoryPath)).size).toBe(spec.memoryMib * 1024 * 1024)
      expect(JSON.parse(JSON.stringify(vm.record))).toEqual(vm.record)
    })

    it('pauses and resumes, twice over without complaint', async () => {
      const { vm } = await boot()
      const nonce = await adapter().writeNonce(vm)
      await vm.pause()
      await vm.pause()
      expect(await vm.status()).toBe('paused')
      await vm.resume()
      await vm.resume()
      expect(await vm.status()).toBe('running')
      expect(await adapter().readNonce(vm)).toBe(nonce)
    })

    it('keeps what is in guest RAM through save, kill, clone and restore', async () => {
      const { vm, spec } = await boot()
      const nonce = await adapter().writeNonce(vm)
      const statePath = await saved(vm, spec)
      expect(await vm.status()).toBe('paused')
      await vm.kill()
      const restored = await restoreClone(spec, statePath)
      expect(await restored.vm.status()).toBe('running')
      expect(await adapter().readNonce(restored.vm)).toBe(nonce)
    })

    it('reports the size and the checksum of what it saved', async () => {
      const { vm, spec } = await boot()
      await vm.pause()
      const statePath = join(dirname(spec.memoryPath), 'state')
      const { bytes, ms, sha256 } = await vm.save(statePath)
      expect((await stat(statePath)).size).toBe(bytes)
      expect(
        createHash('sha256')
          .update(await readFile(statePath))
          .digest('hex'),
      ).toBe(sha256)
      expect(ms).toBeGreaterThanOrEqual(0)
    })

    it('restores with stopped vCPUs when asked to', async () => {
      const { vm, spec } = await boot()
      const nonce = await adapter().writeNonce(vm)
      const statePath = await saved(vm, spec)
      const restored = await restoreClone(spec, statePath, true)
      expect(await restored.vm.status()).toBe('paused')
      await restored.vm.resume()
      expect(await adapter().readNonce(restored.vm)).toBe(nonce)
    })

    it('restores one snapshot twice, side by side and apart from each other', async () => {
      const { vm, spec } = await boot()
      const nonce = await adapter().writeNonce(vm)
      const statePath = await saved(vm, spec)
      const one = await restoreClone(spec, statePath)
      const two = await restoreClone(spec, statePath)
      const changed = await adapter().writeNonce(one.vm)
      expect(changed).not.toBe(nonce)
      expect(await adapter().readNonce(two.vm)).toBe(nonce)
      await vm.resume()
      expect(await adapter().readNonce(vm)).toBe(nonce)
      expect(await adapter().readNonce(one.vm)).toBe(changed)
    })

    it('saves again after a restore, over three generations', async () => {
      let { vm, spec } = await boot()
      let nonce = await adapter().writeNonce(vm)
      for (let generation = 1; generation <= 3; generation++) {
        const statePath = await saved(vm, spec)
        await vm.kill()
        ;({ vm, spec } = await restoreClone(spec, statePath))
        expect(await adapter().readNonce(vm)).toBe(nonce)
        nonce = await adapter().writeNonce(vm)
      }
    })

    it('saves the same guest again and again while it goes on', async () => {
      const { vm, spec } = await boot()
      for (let round = 1; round <= 3; round++) {
        const nonce = await adapter().writeNonce(vm)
        await saved(vm, spec)
        const statePath = await saved(vm, spec)
        const restored = await restoreClone(spec, statePath)
        await vm.resume()
        expect(await adapter().readNonce(restored.vm)).toBe(nonce)
        expect(await adapter().readNonce(vm)).toBe(nonce)
        await restored.vm.kill()
      }
    })

    it('refuses to save a guest whose vCPUs run', async () => {
      const { vm, spec } = await boot()
      await expect(vm.save(join(dirname(spec.memoryPath), 'state'))).rejects.toMatchObject({ code: 'invalid_state' })
      expect(await vm.status()).toBe('running')
    })

    it('is usable after a save that failed, and leaves no part of it', async () => {
      const { vm, spec } = await boot()
      const nonce = await adapter().writeNonce(vm)
      await vm.pause()
      const folder = join(dirname(spec.memoryPath), 'missing')
      await expect(vm.save(join(folder, 'state'))).rejects.toBeInstanceOf(AppError)
      expect(await vm.status()).toBe('paused')
      await mkdir(join(folder, 'state'), { recursive: true })
      await expect(vm.save(join(folder, 'state'))).rejects.toBeInstanceOf(AppError)
      expect(await readdir(folder)).toEqual(['state'])
      await rm(folder, { recursive: true })
      const statePath = await saved(vm, spec)
      const restored = await restoreClone(spec, statePath)
      expect(await adapter().readNonce(restored.vm)).toBe(nonce)
      await vm.resume()
      expect(await adapter().readNonce(vm)).toBe(nonce)
    })

    it('gives a dropped guest to whoever adopts it', async () => {
      const { vm, spec } = await boot()
      const nonce = await adapter().writeNonce(vm)
      await vm.detach()
      vms.splice(0)
      const adopted = await adapter().engine.adopt(vm.record)
      if (!adopted) throw new Error('the guest is there to adopt')
      keep(adopted)
      expect(await adopted.status()).toBe('running')
      expect(await adapter().readNonce(adopted)).toBe(nonce)
      const restored = await restoreClone(spec, await saved(adopted, spec))
      expect(await adapter().readNonce(restored.vm)).toBe(nonce)
      expect((await adopted.kill()).cause).toBe('killed')
      expect(await adapter().isRunning(adopted.record)).toBe(false)
    })

    it('adopts a guest whose process of origin was killed', async (context) => {
      const { bootElsewhere } = adapter()
      if (!bootElsewhere) return context.skip('this engine lives inside its process')
      const spec = await newSpec()
      const { record, nonce } = await bootElsewhere(spec)
      const vm = await adapter().engine.adopt(record)
      if (!vm) throw new Error('the guest is there to adopt')
      keep(vm)
      expect(await vm.status()).toBe('running')
      expect(await adapter().readNonce(vm)).toBe(nonce)
    })

    it('adopts nothing where the guest is gone or the process id is another one', async () => {
      const { vm } = await boot()
      expect(await adapter().engine.adopt({ ...vm.record, pidStartTicks: '1' })).toBeUndefined()
      await vm.kill()
      expect(await adapter().engine.adopt(vm.record)).toBeUndefined()
    })

    it('notices how a guest ends by itself', async () => {
      for (const cause of adapter().guestCauses) {
        const { vm } = await boot()
        await adapter().writeNonce(vm)
        await adapter().endGuest(vm, cause)
        const exit = await vm.exited
        expect(exit).toMatchObject({ cause, message: expect.stringMatching(/\S/) })
        expect(await vm.status()).toBe('exited')
        expect(await vm.consoleTail()).toBe(exit.consoleTail)
        expect(await adapter().isRunning(vm.record)).toBe(false)
      }
    })

    it('notices the end of an adopted guest too', async () => {
      const [cause] = adapter().guestCauses
      if (!cause) throw new Error('an adapter can end its guests')
      const { vm } = await boot()
      await adapter().writeNonce(vm)
      await vm.detach()
      const adopted = await adapter().engine.adopt(vm.record)
      if (!adopted) throw new Error('the guest is there to adopt')
      keep(adopted)
      await adapter().endGuest(adopted, cause)
      expect(await adopted.exited).toMatchObject({ cause })
    })

    it('kills as often as asked, with one and the same answer', async () => {
      const { vm } = await boot()
      const [one, two] = await Promise.all([vm.kill(), vm.kill()])
      expect(one.cause).toBe('killed')
      expect(two).toBe(one)
      expect(await vm.kill()).toBe(one)
      expect(await vm.exited).toBe(one)
      expect(await vm.status()).toBe('exited')
    })

    it('kills a paused guest', async () => {
      const { vm } = await boot()
      await vm.pause()
      expect((await vm.kill()).cause).toBe('killed')
    })

    it('measures CPU time and memory, until the guest has ended', async () => {
      const { vm } = await boot()
      await adapter().writeNonce(vm)
      const { cpuNs, rssBytes } = await vm.stats()
      expect(cpuNs).toBeGreaterThan(0n)
      expect(rssBytes).toBeGreaterThan(0)
      await vm.kill()
      await expect(vm.stats()).rejects.toMatchObject({ code: 'guest_died' })
    })

    it('takes memory from the guest and gives it back', async () => {
      const { vm, spec } = await boot()
      await adapter().writeNonce(vm)
      expect(await vm.balloonMib()).toBe(spec.memoryMib)
      const smaller = spec.memoryMib - 32
      await vm.setBalloonMib(smaller)
      await expect.poll(() => vm.balloonMib(), { timeout: 60_000 }).toBe(smaller)
      await vm.setBalloonMib(spec.memoryMib)
      await expect.poll(() => vm.balloonMib(), { timeout: 60_000 }).toBe(spec.memoryMib)
    })

    it('says why a spec does not run, in the words of the engine', async () => {
      const good = await newSpec()
      const { spec, lastWords } = adapter().breakSpec(good)
      const failure = await adapter()
        .engine.boot(spec)
        .then(() => undefined, AppError.from)
      expect(failure).toMatchObject({ code: 'engine_failure', message: expect.stringMatching(lastWords) })
    })

    it('refuses to restore without its memory or its state', async () => {
      const { vm, spec } = await boot()
      const statePath = await saved(vm, spec)
      const empty = await newSpec()
      await expect(adapter().engine.restore(empty, { statePath })).rejects.toMatchObject({ code: 'engine_failure' })
      await cloneFiles(spec, empty)
      const nowhere = join(dirname(empty.memoryPath), 'no-state')
      await expect(adapter().engine.restore(empty, { statePath: nowhere })).rejects.toMatchObject({
        code: 'engine_failure',
      })
    })

    it('leaves neither process nor socket behind', async () => {
      const { vm, spec } = await boot()
      await saved(vm, spec)
      await vm.kill()
      expect(await adapter().isRunning(vm.record)).toBe(false)
      const { spec: bad } = adapter().breakSpec(await newSpec())
      await expect(adapter().engine.boot(bad)).rejects.toBeInstanceOf(AppError)
      for (const runDir of [spec.runDir, bad.runDir]) {
        const left = await readdir(runDir, { withFileTypes: true })
        expect(left.filter((entry) => entry.isSocket())).toEqual([])
      }
    })

    it('names a version', async () => {
      expect(await adapter().engine.version()).toMatch(/\S/)
    })
  })
}
