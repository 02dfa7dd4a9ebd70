import { describe, expect, it } from 'vitest'
import { cpuArgument, EMULATED_CPUS, HARDWARE_CPUS, hardwareOfVersion, isHostCpu } from './hardware.js'

describe('cpuArgument', () => {
  it('gives an emulated CPU its features by name and lets no QEMU leave one out', () => {
    expect(cpuArgument('tcg-1')).toMatch(/^qemu64-v1,.*avx2=on.*,enforce$/)
    expect(cpuArgument('tcg-1')).not.toMatch(/\bmax\b|sha-ni|x2apic/)
  })

  it('never means something else by a name that states were saved with', () => {
    // Whoever changes these makes every state saved with them unloadable: give the new CPU a new name.
    expect(EMULATED_CPUS).toEqual(['tcg-1', 'max'])
    expect(cpuArgument('max')).toBe('max,la57=off')
    expect(cpuArgument('tcg-1').split(',')).toHaveLength(42)
  })

  it("enforces QEMU's own models by version, and passes the host's CPU through only where a state was saved on it", () => {
    for (const models of Object.values(HARDWARE_CPUS)) {
      for (const model of models) {
        expect(model).toMatch(/-v\d+$/)
        expect(cpuArgument(model)).toBe(`${model},enforce`)
      }
    }
    expect(['host', 'host:GenuineIntel-6-85'].map(cpuArgument)).toEqual(Array(2).fill('host,migratable=on'))
    expect(isHostCpu('EPYC-v3')).toBe(false)
  })
})

describe('hardwareOfVersion', () => {
  it.each([
    ['qemu-tcg', 'qemu 7.2.22 layout 1', { machine: 'pc-q35-7.2', cpu: 'max', layout: 1 }],
    ['qemu-kvm', 'qemu 7.2.22 layout 1', { machine: 'pc-q35-7.2', cpu: 'host', layout: 1 }],
    ['qemu-tcg', 'qemu 10.0.13 layout 1', { machine: 'pc-q35-10.0', cpu: 'max', layout: 1 }],
    ['fake', 'fake 1', undefined],
  ])('knows what the alias q35 meant to %s %s', (engine, version, hardware) => {
    expect(hardwareOfVersion(engine, version)).toEqual(hardware)
  })
})
