import { access, readFile, stat } from 'node:fs/promises'
import { AppError, errorText, isErrno } from '@wrenn/base'
import { parseResolvConf } from '../dns/index.js'
import { runForResult } from '../exec.js'
import { SlotRange } from '../network/address.js'
import { findClash } from '../network/clash.js'
import { filterLink, isOwnLink } from '../network/own-links.js'
import { isInstalled } from './machine-checks.js'
import type { DoctorCheck } from './report.js'

/** What the platform's network is to be, as its configuration says. */
export interface NetworkSettings {
  /** WRENN_INSTANCE: links that begin with it are our own and no clash. */
  readonly prefix: string
  /** WRENN_NETWORK_CIDR. */
  readonly cidr: string
  /** @default '/etc/resolv.conf' */
  readonly resolvConfPath?: string
}

/** Fails when the device is missing, warns when it is not open to all: the host agent opens it at its start. */
export async function checkTun(): Promise<DoctorCheck> {
  const base = { id: 'tun', title: 'TAP devices' }
  try {
    const mode = (await stat('/dev/net/tun')).mode & 0o777
    if (mode === 0o666) return { ...base, status: 'ok', detail: '/dev/net/tun is open to every uid (0666).' }
    const detail = `/dev/net/tun has mode 0${mode.toString(8)}; each VM's own uid must open it. The host agent changes it at its start.`
    return { ...base, status: 'warn', detail, fix: 'chmod 0666 /dev/net/tun' }
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    return { ...base, status: 'fail', detail: '/dev/net/tun is missing.', fix: 'modprobe tun' }
  }
}

/** Makes one and lets it go again, because containers forbid it in many ways that no file tells of. */
export async function checkNamespaces(): Promise<DoctorCheck> {
  const base = { id: 'netns', title: 'Network namespaces' }
  const { exitCode, stderr } = await runForResult('unshare', ['--net', 'true'])
  if (exitCode === 0) return { ...base, status: 'ok', detail: 'Can be made.' }
  return {
    ...base,
    status: 'fail',
    detail: stderr.trim(),
    fix: 'Run as root, on a kernel with CONFIG_NET_NS, not in an unprivileged container.',
  }
}

/** Asks the kernel, not only for the program: nf_tables may be neither built in nor loaded. */
export async function checkNftables(): Promise<DoctorCheck> {
  const base = { id: 'nftables', title: 'nftables' }
  if (!(await isInstalled('nft')))
    return { ...base, status: 'fail', detail: '`nft` is not installed.', fix: 'See packages.' }
  const { exitCode, stderr } = await runForResult('nft', ['list', 'tables'])
  if (exitCode === 0) return { ...base, status: 'ok', detail: 'The kernel answers.' }
  return { ...base, status: 'fail', detail: stderr.trim(), fix: 'modprobe nf_tables' }
}

/** Always ok: the host agent switches forwarding on and leaves it on. */
export async function checkForwarding(): Promise<DoctorCheck> {
  const on = (await readFile('/proc/sys/net/ipv4/ip_forward', 'utf8')).trim() === '1'
  const detail = on ? 'IPv4 forwarding is on.' : 'IPv4 forwarding is off; the host agent switches it on at its start.'
  return { id: 'forwarding', title: 'IPv4 forwarding', status: 'ok', detail }
}

/** Another firewall that drops forwarded packets wins over our accept: every base chain has to let a packet pass. */
export async function checkFirewall(prefix: string): Promise<DoctorCheck> {
  const base = { id: 'firewall', title: 'Other firewalls' }
  const dropping = [...(await droppingTables(prefix)), ...(await droppingLegacy())]
  if (dropping.length === 0) return { ...base, status: 'ok', detail: 'None drops forwarded packets by default.' }
  const accept = [`${prefix}-+`, filterLink(prefix)].flatMap((link) =>
    ['-i', '-o'].map((direction) => `iptables -I FORWARD ${direction} ${link} -j ACCEPT`),
  )
  const fix = `Let it accept what enters or leaves "${prefix}-*" and ${filterLink(prefix)}, e.g. ${accept.join('; ')}`
  const detail = `Forwarded packets are dropped by default in ${dropping.join(', ')}; capsules may have no internet.`
  return { ...base, status: 'warn', detail, fix }
}

/** Warns when no server can be read out of the file; capsules then resolve no names, and all else works. */
export async function checkResolver({
  resolvConfPath: path = '/etc/resolv.conf',
}: NetworkSettings): Promise<DoctorCheck> {
  const base = { id: 'resolver', title: 'Name servers' }
  try {
    const servers = parseResolvConf(await readFile(path, 'utf8'))
    return { ...base, status: 'ok', detail: `Capsules' questions go to ${servers.join(', ')}.` }
  } catch (error) {
    const fix = `Write a \`nameserver\` line into ${path}.`
    return { ...base, status: 'warn', detail: `${path}: ${errorText(error)}; capsules resolve no names.`, fix }
  }
}

/** Fails when an interface of this machine has addresses of the range, or the range is none. */
export async function checkRange({ prefix, cidr }: NetworkSettings): Promise<DoctorCheck> {
  const base = { id: 'range', title: 'Address range' }
  try {
    const range = new SlotRange(cidr)
    const clash = await findClash(range.cidr, (link) => isOwnLink(prefix, link))
    if (!clash)
      return { ...base, status: 'ok', detail: `${cidr} is free and has addresses for ${range.lastIndex} capsules.` }
    const detail = `${cidr} overlaps ${clash.network} on ${clash.link}.`
    return {
      ...base,
      status: 'fail',
      detail,
      fix: 'Set WRENN_NETWORK_CIDR to a network that this machine does not use.',
    }
  } catch (error) {
    if (!AppError.is(error, 'invalid_config')) throw error
    return { ...base, status: 'fail', detail: error.message, fix: 'Change WRENN_NETWORK_CIDR.' }
  }
}

interface ListedChain {
  readonly chain?: {
    readonly family: string
    readonly table: string
    readonly name: string
    readonly hook?: string
    readonly policy?: string
  }
}

async function droppingTables(prefix: string): Promise<readonly string[]> {
  const { exitCode, stdout } = await runForResult('nft', ['--json', 'list', 'chains'])
  if (exitCode !== 0) return []
  const { nftables } = JSON.parse(stdout) as { nftables: readonly ListedChain[] } // libnftables-json(5)
  return nftables
    .flatMap(({ chain }) => (chain ? [chain] : []))
    .filter(({ hook, policy, table }) => hook === 'forward' && policy === 'drop' && table !== prefix)
    .map(({ family, table, name }) => `nftables ${family} ${table} ${name}`)
}

async function droppingLegacy(): Promise<readonly string[]> {
  const used = await access('/proc/net/ip_tables_names').then(
    () => true,
    () => false,
  )
  if (!used || !(await isInstalled('iptables-legacy'))) return []
  const { stdout } = await runForResult('iptables-legacy', ['-S', 'FORWARD'])
  return stdout.includes('-P FORWARD DROP') ? ['iptables FORWARD'] : []
}
