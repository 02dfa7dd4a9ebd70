import { spawn } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fail } from '../prepare.mjs'

/** Steps in their order, with what each may take on an emulated CPU. */
const LIMITS_S = {
  facts: 600,
  demo: 5_400,
  doctor: 300,
  kvm: 1_800,
  systemd: 1_800,
  session: 1_200,
  limits: 1_800,
  suites: 3_000,
}
const BOOT_S = 600
const MEMORY_MIB = 6_144

/** @returns {string[]} */
export function allSteps() {
  return Object.keys(LIMITS_S)
}

/** @param {string} step @returns {number} */
export function limitSeconds(step) {
  return LIMITS_S[step] ?? fail(`There is no step ${step}.`)
}

/**
 * Runs a machine until it powers itself off, or its time is up.
 * @param {string} dir @param {readonly string[]} disks @param {readonly string[]} steps
 */
export async function runMachine(dir, disks, steps) {
  const serial = join(dir, 'serial.log')
  rmSync(serial, { force: true })
  const drives = [join(dir, 'disk.img'), ...disks].flatMap((file) => [
    '-drive',
    `file=${file},format=raw,if=virtio,cache=unsafe`,
  ])
  const limit = BOOT_S + steps.reduce((sum, step) => sum + limitSeconds(step), 0)
  const machine = spawn(
    'timeout',
    [
      ...[String(limit), 'qemu-system-x86_64', '-M', 'q35', '-accel', 'tcg,thread=multi,tb-size=512'],
      // It emulates SVM too, so that the machine has a /dev/kvm whose guests are not emulated twice.
      // With a second CPU a kernel that patches its own code while it runs was seen to die (a jump label in `__schedule`, which KVM
      // switches with its first and last guest).
      ...['-cpu', 'max,la57=off', '-smp', '1', '-m', String(MEMORY_MIB)],
      ...['-display', 'none', '-nodefaults', '-no-reboot', '-serial', `file:${serial}`],
      ...['-kernel', join(dir, 'vmlinuz'), '-initrd', join(dir, 'initrd')],
      '-append',
      // The network card's name would depend on how many disks there are.
      'root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off no_timer_check systemd.mask=serial-getty@ttyS0.service',
      ...drives,
      ...['-netdev', 'user,id=n', '-device', 'virtio-net-pci,netdev=n,romfile='],
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  )
  await new Promise((resolve) => machine.once('close', resolve))
  return readResult(readFileSync(serial, 'utf8'), steps)
}

/**
 * What the machine said of itself and of each step; the kernel writes to the same line.
 * @param {string} log @param {readonly string[]} steps
 */
export function readResult(log, steps) {
  const facts = Object.fromEntries([...log.matchAll(/@fact (\w+) ([^\r\n]*)/g)].map(([, key, value]) => [key, value]))
  const ended = new Map(
    [...log.matchAll(/@step (\w+) (\d+) (\d+)/g)].map(([, name, status, s]) => [name, { status, s }]),
  )
  const begun = new Set([...log.matchAll(/@begin (\w+)/g)].map(([, name]) => name))
  return {
    facts,
    steps: steps.map((name) => {
      const end = ended.get(name)
      if (end === undefined) return { name, outcome: begun.has(name) ? 'did not end' : 'not run', seconds: undefined }
      return { name, outcome: end.status === '0' ? 'passed' : 'failed', seconds: Number(end.s) }
    }),
  }
}
