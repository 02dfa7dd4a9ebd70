import { describe, expect, it } from 'vitest'
import type { VmSpec } from '../engine.js'
import { type CommandLineOptions, qemuArguments } from './command-line.js'

const spec: VmSpec = {
  id: 'cl-abc',
  hardware: { machine: 'pc-q35-7.2', cpu: 'tcg-1', layout: 1 },
  vcpus: 2,
  memoryMib: 512,
  kernel: { kernelPath: '/pool/vmlinuz', initrdPath: '/pool/initrd', args: ['wrenn.x=1'] },
  layers: [
    { role: 'base', path: '/pool/base,1.img' },
    { role: 'agent', path: '/pool/agent.img' },
  ],
  disk: { path: '/pool/"odd".raw' },
  memoryPath: '/pool/mem',
  network: { namespace: 'ns1', tap: 'tap0', mac: '02:57:52:00:00:05' },
  runDir: '/run/w,1',
  confinement: { uid: 1, gid: 1, cgroups: [] },
}
const tcg: CommandLineOptions = { accelerator: 'tcg', tcgBufferMib: 64, start: 'boot' }

/** Every value of an option, JSON parsed where it is JSON. */
function values(args: readonly string[], option: string): unknown[] {
  return args.flatMap((arg, index) => {
    const value = args[index + 1] ?? ''
    return arg === option ? [value.startsWith('{') ? JSON.parse(value) : value] : []
  })
}

describe('qemuArguments', () => {
  it('shows the capsule in the process list', () => {
    expect(qemuArguments(spec, tcg).slice(0, 2)).toEqual(['-name', 'guest=cl-abc'])
  })

  it('names drives by role, shares layers read-only and lets the guest give back space', () => {
    const args = qemuArguments(spec, tcg)
    expect(values(args, '-blockdev')).toMatchObject([
      { 'node-name': 'base', 'read-only': true, file: { filename: '/pool/base,1.img' } },
      { 'node-name': 'agent', 'read-only': true, file: { filename: '/pool/agent.img' } },
      {
        'node-name': 'data',
        'read-only': false,
        discard: 'unmap',
        file: { filename: '/pool/"odd".raw', discard: 'unmap' },
      },
    ])
    const disks = values(args, '-device').filter((value) => JSON.stringify(value).includes('virtio-blk'))
    expect(disks).toMatchObject([{ serial: 'base' }, { serial: 'agent' }, { serial: 'data' }])
  })

  it('maps RAM from its file, shared and not filled ahead', () => {
    const [memory] = values(qemuArguments(spec, tcg), '-object')
    expect(memory).toMatchObject({ 'mem-path': '/pool/mem', size: 536870912, share: true, prealloc: false })
  })

  it('has a network card only with a slot', () => {
    const { network: _, ...rest } = spec
    const without = qemuArguments({ ...rest, network: undefined }, tcg)
    expect(values(without, '-netdev')).toEqual([])
    expect(values(qemuArguments(spec, tcg), '-netdev')).toMatchObject([{ ifname: 'tap0', script: 'no' }])
  })

  it("puts the caller's kernel arguments after the engine's", () => {
    expect(values(qemuArguments(spec, tcg), '-append')).toEqual([
      expect.stringMatching(/^console=ttyS0 .*panic=-1.* wrenn\.x=1$/),
    ])
  })

  it('starts programs at the same addresses where QEMU translates them anew for each other one, and only there', () => {
    const appended = (machine: string, accelerator: CommandLineOptions['accelerator']) =>
      values(qemuArguments({ ...spec, hardware: { ...spec.hardware, machine } }, { ...tcg, accelerator }), '-append')
    expect(appended('pc-q35-7.2', 'tcg')).toEqual([expect.stringContaining(' norandmaps wrenn.x=1')])
    expect(appended('pc-q35-10.0', 'tcg')).toEqual([expect.not.stringContaining('norandmaps')])
    expect(appended('pc-q35-7.2', 'kvm')).toEqual([expect.not.stringContaining('norandmaps')])
  })

  it('escapes commas where QEMU splits at them', () => {
    expect(values(qemuArguments(spec, tcg), '-chardev')).toContainEqual(
      expect.stringContaining('path=/run/w,,1/boot.sock'),
    )
  })

  it('sets up the same devices for a restore, with a stub in place of the kernel', () => {
    const booting = qemuArguments(spec, tcg)
    const restoring = qemuArguments(spec, { ...tcg, start: 'incoming' })
    for (const option of ['-machine', '-cpu', '-m', '-smp', '-object', '-blockdev', '-netdev', '-device', '-chardev']) {
      expect(values(restoring, option)).toEqual(values(booting, option))
    }
    expect(values(restoring, '-kernel')).toEqual(['/run/w,1/kernel.stub'])
    expect(values(restoring, '-initrd')).toEqual([])
    expect(restoring.slice(-2)).toEqual(['-incoming', 'defer'])
  })

  it('makes the machine and the CPU that the spec names, never what is newest', () => {
    const args = qemuArguments({ ...spec, hardware: { machine: 'pc-q35-10.0', cpu: 'EPYC-v3', layout: 1 } }, tcg)
    expect(values(args, '-machine')).toEqual([expect.stringMatching(/^pc-q35-10\.0,/)])
    expect(values(args, '-cpu')).toEqual(['EPYC-v3,enforce'])
  })

  it('runs with KVM or emulates', () => {
    expect(values(qemuArguments(spec, { ...tcg, accelerator: 'kvm' }), '-accel')).toEqual(['kvm'])
    expect(values(qemuArguments(spec, tcg), '-accel')).toEqual(['tcg,thread=multi,tb-size=64'])
  })

  it('refuses a run directory whose sockets could not be named', () => {
    expect(() => qemuArguments({ ...spec, runDir: `/${'x'.repeat(100)}` }, tcg)).toThrow(/too long/)
  })
})
