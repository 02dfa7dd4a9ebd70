import type { VmSpec } from '../engine.js'
import { cpuArgument } from './hardware.js'
import { runFiles } from './run-dir.js'

/** How QEMU runs guest code: by the CPU's virtualization, or by translating it (TCG). */
export type Accelerator = 'kvm' | 'tcg'

/** What differs between guests of one layout beyond their spec. */
export interface CommandLineOptions {
  readonly accelerator: Accelerator
  /** Cap of TCG's translation buffer. */
  readonly tcgBufferMib: number
  /** `incoming` waits for device state instead of booting. */
  readonly start: 'boot' | 'incoming'
}

/** Bytes of console kept inside QEMU; a power of two. */
export const CONSOLE_BYTES = 64 * 1024

/**
 * Kernel arguments of the engine: a panic ends the guest at once, by the one reset that needs no device. The early kernel
 * counts timer interrupts against the time stamp counter; where QEMU waits for a CPU meanwhile it takes the timer for broken,
 * tries others and panics ("IO-APIC + timer doesn't work"), so it must not check.
 */
const KERNEL_ARGS = ['console=ttyS0', 'panic=-1', 'reboot=t', 'no_timer_check', 'quiet', 'loglevel=4']

/**
 * QEMU 7.2 keeps translated code under the address that the guest runs it at, later versions do not. A program that is mapped
 * somewhere else at each start is translated anew each time, its loader and C library with it: 2,500 blocks for `/bin/true`, more
 * than half of what such a command costs. Therefore programs of a guest of that age always start at the same addresses. Its owner may
 * have it the other way (`sysctl kernel.randomize_va_space=2`); with hardware virtualization nothing of this is done.
 */
const SAME_ADDRESSES = 'norandmaps'
const TRANSLATED_BY_ADDRESS = 'pc-q35-7.2'

/** Inside a QemuOpts value a comma is written twice. */
function escapeComma(text: string): string {
  return text.replaceAll(',', ',,')
}

function pairs(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
}

function json(value: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(value)
}

/** Off is everything that Linux on virtio does not need; the PIT stays, because without KVM the kernel times its TSC by it. */
const MACHINE = {
  usb: 'off',
  sata: 'off',
  smbus: 'off',
  vmport: 'off',
  hpet: 'off',
  smm: 'off',
  graphics: 'off',
  'dump-guest-core': 'off',
  'memory-backend': 'ram',
}

function accelerator(options: CommandLineOptions): string {
  return options.accelerator === 'kvm' ? 'kvm' : `tcg,thread=multi,tb-size=${options.tcgBufferMib}`
}

/** RAM is a shared mapping of a file and `x-ignore-shared` keeps it out of the saved state. */
function memory(spec: VmSpec): string[] {
  const size = spec.memoryMib * 1024 * 1024
  const backend = { 'qom-type': 'memory-backend-file', id: 'ram', 'mem-path': spec.memoryPath, size, share: true }
  return ['-m', `${spec.memoryMib}M`, '-object', json({ ...backend, prealloc: false })]
}

/** A restored guest has its kernel in RAM; QEMU only has to set up the same devices. */
function kernel(spec: VmSpec, options: CommandLineOptions): string[] {
  if (options.start === 'incoming') return ['-kernel', runFiles(spec.runDir).kernelStub]
  const { kernelPath, initrdPath, args } = spec.kernel
  const isByAddress = options.accelerator === 'tcg' && spec.hardware.machine === TRANSLATED_BY_ADDRESS
  const own = isByAddress ? [...KERNEL_ARGS, SAME_ADDRESSES] : KERNEL_ARGS
  return ['-kernel', kernelPath, '-initrd', initrdPath, '-append', [...own, ...args].join(' ')]
}

const MODERN = { 'disable-legacy': 'on', 'disable-modern': false }

/**
 * `cache.direct` stays off: the pool is btrfs, often on a loop device, where direct I/O gives up checksums' stability and
 * the page cache that capsules of one template share. A guest's flush reaches the disk.
 */
function drive(role: string, path: string, access: 'read-only' | 'read-write'): string[] {
  const readOnly = access === 'read-only'
  const file = { driver: 'file', filename: path, aio: 'threads', locking: 'auto' }
  const node = { driver: 'raw', 'node-name': role, 'read-only': readOnly, cache: { direct: false } }
  return [
    '-blockdev',
    json({
      ...node,
      discard: readOnly ? 'ignore' : 'unmap',
      file: { ...file, discard: readOnly ? 'ignore' : 'unmap' },
    }),
    '-device',
    json({ driver: 'virtio-blk-pci', id: `disk-${role}`, drive: role, serial: role, 'num-queues': 1, ...MODERN }),
  ]
}

function network(spec: VmSpec): string[] {
  if (!spec.network) return []
  const backend = { type: 'tap', id: 'net', ifname: spec.network.tap, script: 'no', downscript: 'no', vhost: false }
  const device = { driver: 'virtio-net-pci', id: 'nic', netdev: 'net', mac: spec.network.mac, romfile: '', ...MODERN }
  return ['-netdev', json(backend), '-device', json(device)]
}

/** A new generation id at each start: after a restore the guest's kernel reseeds its random generator at once. */
function devices(): string[] {
  return [
    ...['-device', json({ driver: 'vmgenid', id: 'generation', guid: 'auto' })],
    ...['-object', json({ 'qom-type': 'rng-builtin', id: 'rng' })],
    ...['-device', json({ driver: 'virtio-rng-pci', id: 'entropy', rng: 'rng', ...MODERN })],
    ...[
      '-device',
      json({
        driver: 'virtio-balloon-pci',
        id: 'balloon',
        'free-page-reporting': true,
        'deflate-on-oom': true,
        ...MODERN,
      }),
    ],
  ]
}

/**
 * The console goes to a ring inside QEMU, so that a guest that floods it fills neither disk nor pipe. Hence a guest that
 * ends by itself leaves QEMU stopped (`shutdown=pause`) until somebody has read the ring and why it ended.
 */
function control(runDir: string): string[] {
  const files = runFiles(runDir)
  return [
    ...['-chardev', `socket,id=boot-monitor,path=${escapeComma(files.bootSocket)},server=off`],
    ...['-mon', 'chardev=boot-monitor,mode=control'],
    ...['-chardev', `socket,id=monitor,path=${escapeComma(files.monitorSocket)},server=on,wait=off`],
    ...['-mon', 'chardev=monitor,mode=control'],
    ...['-chardev', `ringbuf,id=console,size=${CONSOLE_BYTES}`, '-serial', 'chardev:console'],
    ...['-action', 'reboot=shutdown,shutdown=pause'],
  ]
}

/** The arguments of `qemu-system-x86_64` for one guest, in device layout 1; QEMU starts with stopped vCPUs. */
export function qemuArguments(spec: VmSpec, options: CommandLineOptions): string[] {
  return [
    ...['-name', `guest=${escapeComma(spec.id)}`],
    ...['-no-user-config', '-nodefaults', '-display', 'none', '-S'],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    ...['-machine', `${spec.hardware.machine},${pairs(MACHINE)}`],
    ...['-accel', accelerator(options), '-cpu', cpuArgument(spec.hardware.cpu)],
    ...['-smp', String(spec.vcpus)],
    ...memory(spec),
    ...['-rtc', 'base=utc,clock=host'],
    ...kernel(spec, options),
    ...spec.layers.flatMap((layer) => drive(layer.role, layer.path, 'read-only')),
    ...drive('data', spec.disk.path, 'read-write'),
    ...network(spec),
    ...devices(),
    ...control(spec.runDir),
    ...(options.start === 'incoming' ? ['-incoming', 'defer'] : []),
  ]
}
