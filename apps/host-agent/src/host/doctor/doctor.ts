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
  try {
    return await check()
  } catch (error) {
    return { id, title: id, status: 'fail', detail: `The check itself failed: ${errorText(error)}` }
  }
}
