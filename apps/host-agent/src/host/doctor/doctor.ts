import { errorText } from '@wrenn/base'
import type { ObjectStoreConfig } from '@wrenn/object-store'
import {
  checkCgroups,
  checkDisk,
  checkEngine,
  checkGuestKernel,
  checkGuestNode,
  checkKvm,
  checkMemory,
  checkPackages,
  checkQemu,
  checkReflink,
  checkUserfaultfd,
  checkWriteBack,
  type EngineChoice,
  type GuestKernel,
  type GuestNode,
  type HostProgram,
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
import { checkObjectStore } from './object-store-check.js'
import { type DoctorCheck, type DoctorReport, reportOf } from './report.js'

/** What is to be looked at. Whatever the caller does not know is left out of the verdict, not failed. */
export interface DoctorOptions {
  /** WRENN_DIR; need not exist yet. */
  readonly dir: string
  /** Its program, when it is not the usual one. */
  readonly qemu?: string | undefined
  readonly network: NetworkSettings
  readonly programs: readonly HostProgram[]
  /** What the caller knows of it. */
  readonly engine?: EngineChoice
  /** Why the caller could not find out. */
  readonly engineUnreadable?: string
  /** Which kernel guests boot; gives `undefined` while there is none. */
  readonly guestKernel?: () => Promise<GuestKernel | undefined>
  /** Which Node.js is on their agent drive; gives `undefined` while there is none. */
  readonly guestNode?: () => Promise<GuestNode | undefined>
  /** The one of the settings; none when they name none. */
  readonly objectStore?: ObjectStoreConfig | undefined
  readonly objectStoreBytesPerSec?: number | undefined
  /** Whether hibernated capsules are to run before their memory is whole. */
  readonly lazyResume?: boolean | undefined
}

/** Looks at the machine and changes nothing on it. A check that fails to run is a failed check, not an error. */
export async function examineHost(options: DoctorOptions): Promise<DoctorReport> {
  const { dir, qemu, network, programs, engine, engineUnreadable, guestKernel, guestNode, objectStore } = options
  const checks: readonly (readonly [id: string, title: string, check: () => DoctorCheck | Promise<DoctorCheck>])[] = [
    ['engine', 'Engine', () => checkEngine(engine, engineUnreadable)],
    ['kvm', 'Hardware virtualization', checkKvm],
    ['packages', 'Debian packages', () => checkPackages(programs)],
    ['qemu', 'QEMU', () => checkQemu(qemu)],
    ['guest-kernel', 'Guest kernel', async () => checkGuestKernel(await guestKernel?.())],
    ['guest-node', 'Node.js of guests', async () => checkGuestNode(await guestNode?.())],
    ['memory', 'Memory', checkMemory],
    ['disk', 'Disk space', () => checkDisk(dir)],
    ['reflink', 'Cloning file system', () => checkReflink(dir)],
    ['cgroups', 'Resource limits', checkCgroups],
    ['userfaultfd', 'userfaultfd', checkUserfaultfd],
    ['tun', 'TAP devices', checkTun],
    ['netns', 'Network namespaces', checkNamespaces],
    ['nftables', 'nftables', checkNftables],
    ['range', 'Address range', () => checkRange(network)],
    ['forwarding', 'IPv4 forwarding', checkForwarding],
    ['firewall', 'Other firewalls', () => checkFirewall(network.prefix)],
    ['resolver', 'Name servers', () => checkResolver(network)],
    ['object-store', 'Object store', () => checkObjectStore(objectStore, options)],
    ['write-back', 'Write-back of guest memory', checkWriteBack],
  ]
  return reportOf(await Promise.all(checks.map(([id, title, check]) => attempt({ id, title }, check))))
}

type Subject = Pick<DoctorCheck, 'id' | 'title'>

/** `uid` is who looks. */
export async function attempt(
  subject: Subject,
  check: () => DoctorCheck | Promise<DoctorCheck>,
  uid = process.getuid?.(),
): Promise<DoctorCheck> {
  try {
    return seenBy(uid, { ...(await check()), ...subject })
  } catch (error) {
    const detail = errorText(error)
    const seen = seenBy(uid, { ...subject, status: 'fail', detail })
    return seen.status === 'fail' ? { ...seen, detail: `The check itself failed: ${detail}` } : seen
  }
}

/** What is refused to somebody who is not root says nothing about the machine. */
export function seenBy(uid: number | undefined, check: DoctorCheck): DoctorCheck {
  const isRefused = /permission denied|not permitted|\bEACCES\b|\bEPERM\b/i.test(check.detail)
  if (uid === 0 || check.status === 'ok' || !isRefused) return check
  const detail = `Cannot be checked without root: ${check.detail.split('\n')[0]}`
  return { ...check, status: 'warn', detail, fix: 'Run this with sudo.' }
}
