import type { EngineName, Hardware } from '../engine.js'

/**
 * Number of the device layout that new guests get. A saved state loads only into its own layout: raise this with every change
 * that a guest could see, and keep what makes the older ones (`qemuArguments` has it from the spec).
 */
export const MACHINE_LAYOUT = 1

/**
 * Machine types that new guests get, the first that the program has. Proven by `conformance/versions.test.ts`: a state of each
 * goes from every version that has the type to every other and runs on. A type is added here with such a run, never by name.
 */
export const PROVEN_MACHINES: readonly string[] = ['pc-q35-10.0', 'pc-q35-7.2']

/** Of an emulated CPU: everything that QEMU 7.2 emulates, less what later versions dropped or a guest is better off without. */
const TCG_1 = [
  ...['acpi', 'ss', 'pclmulqdq', 'monitor', 'ssse3', 'fma', 'movbe', 'sse4.1', 'sse4.2', 'popcnt', 'aes', 'xsave'],
  ...['avx', 'f16c', 'rdrand', 'fsgsbase', 'bmi1', 'avx2', 'smep', 'bmi2', 'erms', 'adx', 'smap', 'clflushopt'],
  ...['clwb', 'umip', 'pku', 'vaes', 'mmxext', 'pdpe1gb', 'rdtscp', 'abm', 'sse4a', 'cr8legacy', 'npt', 'vgif'],
  ...['svme-addr-chk', 'xsaveopt', 'xgetbv1', 'arat'],
]

/**
 * Emulated CPUs of ours by name. A name means the same features for ever: `enforce` makes a QEMU that lacks one refuse, where
 * it would leave it out, and unlike `max` no QEMU adds one. A guest keeps using what it found when it booted.
 */
const EMULATED: Readonly<Record<string, string>> = {
  'tcg-1': `qemu64-v1,${TCG_1.map((feature) => `${feature}=on`).join(',')},enforce`,
  // Of states saved before CPUs had names. Five-level page tables cost the emulated walk a level and give a guest nothing.
  max: 'max,la57=off',
}

/** Emulated CPUs for new guests, best first; `max` for a QEMU before 7.2. */
export const EMULATED_CPUS: readonly string[] = ['tcg-1', 'max']

/**
 * Models for guests under KVM, best first. They mean the same in every QEMU that has them, and a state of one runs on any CPU
 * that has all its features, which QEMU checks (`enforce`); `host` means another CPU on every host.
 */
export const HARDWARE_CPUS: Readonly<Record<string, readonly string[]>> = {
  AuthenticAMD: ['EPYC-Milan-v1', 'EPYC-Rome-v2', 'EPYC-v3'],
  GenuineIntel: [
    ...['Icelake-Server-v6', 'Cascadelake-Server-v5', 'Skylake-Server-v5', 'Skylake-Client-v4', 'Broadwell-v4'],
    ...['Haswell-v4', 'IvyBridge-v2', 'SandyBridge-v2', 'Westmere-v2', 'Nehalem-v2'],
  ],
}

/** What stands before the identity of a processor in the name of a CPU that is the host's own. */
export const HOST_CPU = 'host'

/** The value of `-cpu` for a name of `Hardware.cpu`. */
export function cpuArgument(name: string): string {
  const emulated = Object.hasOwn(EMULATED, name) ? EMULATED[name] : undefined
  if (emulated !== undefined) return emulated
  return isHostCpu(name) ? 'host,migratable=on' : `${name},enforce`
}

/** Whether a CPU is whatever the host has: `host` of states without names, else `host:` and which processor that was. */
export function isHostCpu(name: string): boolean {
  return name === HOST_CPU || name.startsWith(`${HOST_CPU}:`)
}

/**
 * The hardware of a guest that was started before guests had it on record: the alias `q35` of the version that ran it, which
 * is that version's own machine type. `undefined` for an engine that never did without.
 */
export function hardwareOfVersion(engine: string, engineVersion: string): Hardware | undefined {
  const version = /^qemu (\d+)\.(\d+)/.exec(engineVersion)
  if (version === null) return undefined
  const kvm: EngineName = 'qemu-kvm'
  return { machine: `pc-q35-${version[1]}.${version[2]}`, cpu: engine === kvm ? HOST_CPU : 'max', layout: 1 }
}
