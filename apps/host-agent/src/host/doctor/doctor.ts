import { errorText } from '@wrenn/base'
import {
  checkCgroups,
  checkDisk,
  checkEngine,
  checkKvm,
  checkMemory,
  checkPackages,
  checkQemu,
  checkReflink,
  checkUserfaultfd,
  checkWriteBack,
  type EngineChoice,
} from './machine-checks.js'
import {
  checkFirewall,
  checkForwarding,
  checkNamespaces,
  checkNftables,
  checkRange,
  checkResolver,
  checkTun,
  type NetworkSettings,
} from './network-checks.js'
import { type DoctorCheck, type DoctorReport, reportOf } from './report.js'

export interface DoctorOptions {
  /** WRENN_DIR; need not exist yet. */
  readonly dir: string
  readonly network: NetworkSettings
  /** What the caller found by booting a tiny guest. */
  readonly engine?: EngineChoice
  /** Why the caller could not find out. */
  readonly engineUnreadable?: string
}

/** Looks at the machine and changes nothing on it. A check that fails to run is a failed check, not an error. */
export async function examineHost({ dir, network, engine, engineUnreadable }: DoctorOptions): Promise<DoctorReport> {
  const checks: readonly (readonly [id: string, check: () => DoctorCheck | Promise<DoctorCheck>])[] = [
    ['engine', () => checkEngine(engine, engineUnreadable)],
    ['kvm', checkKvm],
    ['packages', checkPackages],
    ['qemu', checkQemu],
    ['memory', checkMemory],
    ['disk', () => checkDisk(dir)],
    ['reflink', () => checkReflink(dir)],
    ['cgroups', checkCgroups],
    ['userfaultfd', checkUserfaultfd],
    ['tun', checkTun],
    ['netns', checkNamespaces],
    ['nftables', checkNftables],
    ['range', () => checkRange(network)],
    ['forwarding', checkForwarding],
    ['firewall', () => checkFirewall(network.prefix)],
    ['resolver', checkResolver],
    ['write-back', checkWriteBack],
  ]
  return reportOf(await Promise.all(checks.map(([id, check]) => attempt(id, check))))
}

async function attempt(id: string, check: () => DoctorCheck | Promise<DoctorCheck>): Promise<DoctorCheck> {
  return seenBy(process.getuid?.(), await attemptAsWeAre(id, check))
}

async function attemptAsWeAre(id: string, check: () => DoctorCheck | Promise<DoctorCheck>): Promise<DoctorCheck> {
  try {
    return await check()
  } catch (error) {
    return { id, title: id, status: 'fail', detail: `The check itself failed: ${errorText(error)}` }
  }
}

/** What is refused to somebody who is not root says nothing about the machine. */
export function seenBy(uid: number | undefined, check: DoctorCheck): DoctorCheck {
  const isRefused = /permission denied|not permitted|\bEACCES\b|\bEPERM\b/i.test(check.detail)
  if (uid === 0 || check.status === 'ok' || !isRefused) return check
  const detail = `Cannot be checked without root: ${check.detail.split('\n')[0]}`
  return { ...check, status: 'warn', detail, fix: 'Run this with sudo.' }
}
