import { chmod, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { QemuProgram } from './program.js'

interface Installed {
  readonly version: string
  /** Machine types, the alias `q35` on the last. */
  readonly machines: readonly string[]
  /** What `-cpu` it refuses to start with. */
  readonly refuses?: string
}

let folder: string
let path: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'wrenn-program-'))
  path = join(folder, 'qemu')
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

/** A program that answers as QEMU does, and counts how often it is started. */
async function install({ version, machines, refuses = 'nothing' }: Installed): Promise<void> {
  const types = machines.map((name, index) => ({ name, ...(index === machines.length - 1 ? { alias: 'q35' } : {}) }))
  const script = `#!/bin/sh
echo x >>${folder}/starts
case "$*" in
*--version*) echo "QEMU emulator version ${version} (Debian)"; exit ;;
*"-cpu ${refuses}"*) echo "qemu: warning: TCG doesn't support requested feature" >&2; exit 1 ;;
esac
echo '{"QMP": {"version": {}}}'
while read -r line; do
  case "$line" in
  *query-machines*) echo '{"return": ${JSON.stringify(types)}}' ;;
  *) echo '{"return": {}}' ;;
  esac
done
`
  await writeFile(`${path}.new`, script)
  await chmod(`${path}.new`, 0o755)
  await rename(`${path}.new`, path)
}

const old: Installed = { version: '7.2.22', machines: ['pc-q35-7.1', 'pc-q35-7.2'] }
const recent: Installed = { version: '10.0.13', machines: ['pc-q35-7.2', 'pc-q35-9.2', 'pc-q35-10.0'] }
const starts = async (): Promise<number> => (await readFile(join(folder, 'starts'), 'utf8')).length / 2

describe('a QEMU program', () => {
  it('gives new guests the newest machine type that is proven, and asks once', async () => {
    await install(recent)
    const program = new QemuProgram(path, 'tcg')
    expect(await program.version()).toBe('qemu 10.0.13')
    expect(await program.newHardware()).toEqual({ machine: 'pc-q35-10.0', cpu: 'tcg-1', layout: 1 })
    const asked = await starts()
    await Promise.all([program.newHardware(), program.version(), program.newHardware()])
    expect(await starts()).toBe(asked)
  })

  it('gives them what its alias q35 means where none is proven, and the CPU that it can run', async () => {
    await install({ version: '6.2.0', machines: ['pc-q35-6.1', 'pc-q35-6.2'], refuses: 'qemu64' })
    expect(await new QemuProgram(path, 'tcg').newHardware()).toEqual({ machine: 'pc-q35-6.2', cpu: 'max', layout: 1 })
  })

  it('loads states of every machine type that it has, whatever version saved them', async () => {
    await install(recent)
    const program = new QemuProgram(path, 'tcg')
    for (const machine of recent.machines) {
      for (const cpu of ['tcg-1', 'max']) {
        expect(await program.obstacle({ machine, cpu, layout: 1 })).toBeUndefined()
      }
    }
  })

  it('says what it lacks for a state that it cannot load', async () => {
    await install({ ...old, refuses: 'EPYC-v3' })
    const program = new QemuProgram(path, 'tcg')
    const state = { machine: 'pc-q35-7.2', cpu: 'tcg-1', layout: 1 }
    expect(await program.obstacle({ ...state, machine: 'pc-q35-10.0' })).toBe(
      'qemu 7.2.22 has no machine type pc-q35-10.0',
    )
    expect(await program.obstacle({ ...state, cpu: 'EPYC-v3' })).toMatch(
      /cannot give it the CPU EPYC-v3.*doesn't support/,
    )
    expect(await program.obstacle({ ...state, cpu: 'host:Nobody-1-1' })).toMatch(
      /^its CPU was host:Nobody-1-1 and this/,
    )
    expect(await program.obstacle({ ...state, layout: 99 })).toContain('device layout 99')
  })

  it('is asked anew when another one was installed in its place', async () => {
    await install(old)
    const program = new QemuProgram(path, 'tcg')
    const state = { machine: 'pc-q35-10.0', cpu: 'tcg-1', layout: 1 }
    expect([await program.version(), await program.obstacle(state)]).toEqual([
      'qemu 7.2.22',
      expect.stringContaining('no machine type'),
    ])
    await install(recent)
    expect([await program.version(), await program.obstacle(state)]).toEqual(['qemu 10.0.13', undefined])
  })

  it('that is not there is named, and found once it is', async () => {
    const program = new QemuProgram(path, 'tcg')
    await expect(program.version()).rejects.toMatchObject({
      code: 'engine_failure',
      message: expect.stringContaining('not installed'),
    })
    await install(old)
    expect(await program.version()).toBe('qemu 7.2.22')
  })
})
