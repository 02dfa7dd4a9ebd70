import { readdir, readFile, writeFile } from 'node:fs/promises'
import { isErrno } from '@wrenn/base'
import { run } from '../exec.js'
import type { SlotRange } from './address.js'
import { GATEWAY_ADDRESS, GUEST_ADDRESS, slotRules } from './rules.js'
import { TAP } from './tap-counters.js'

/** The same in every slot, so that a snapshot restores in any. The gateway's too: the guest has it in its neighbour table. */
export const GUEST_MAC = '02:57:52:00:00:05'
const GATEWAY_MAC = '02:57:52:00:00:16'
const NAMESPACE_DIR = '/run/netns'

/** What a slot is made from. */
export interface SlotPlan {
  readonly name: string
  readonly index: number
  readonly uid: number
  readonly mtu: number
  readonly label: string
}

/** Makes namespaces with their links, rules and taps. A slot that fails is removed before this throws. */
export async function makeSlot(plan: SlotPlan, range: SlotRange): Promise<void> {
  const addresses = range.addresses(plan.index)
  try {
    await run('ip', ['-batch', '-'], { input: rootCommands(plan, addresses.host) })
    await run('nsenter', [`--net=${NAMESPACE_DIR}/${plan.name}`, 'sh', '-s'], { input: namespaceScript(plan, range) })
  } catch (error) {
    await removeSlots([plan.name])
    throw error
  }
}

function rootCommands({ name, mtu, label }: SlotPlan, hostAddress: string): string {
  return [
    `netns add ${name}`,
    `link add ${name} mtu ${mtu} type veth peer name eth0 mtu ${mtu} netns ${name}`,
    `link set ${name} alias "${label}"`,
    `addr add ${hostAddress}/30 dev ${name}`,
    `link set ${name} up`,
    '',
  ].join('\n')
}

/** One shell in the namespace: rules first, then the links that they guard. */
function namespaceScript(plan: SlotPlan, range: SlotRange): string {
  const addresses = range.addresses(plan.index)
  return `set -e
echo 1 > /proc/sys/net/ipv4/ip_forward
for conf in all default; do
  [ ! -e /proc/sys/net/ipv6/conf/$conf/disable_ipv6 ] || echo 1 > /proc/sys/net/ipv6/conf/$conf/disable_ipv6
done
nft -f - <<'END'
${slotRules(range, addresses)}END
# A packet from the middle of an unknown connection is invalid instead of the beginning of a new one; one outside a known
# connection's window is not, for an invalid one is answered with a reset.
echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose
echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal
exec ip -batch - <<'END'
tuntap add dev ${TAP} mode tap user ${plan.uid}
link set ${TAP} address ${GATEWAY_MAC} mtu ${plan.mtu} up
addr add ${GATEWAY_ADDRESS}/30 dev ${TAP}
neigh add ${GUEST_ADDRESS} lladdr ${GUEST_MAC} dev ${TAP} nud permanent
link set lo up
addr add ${addresses.guest}/30 dev eth0
link set eth0 up
route add default via ${addresses.host}
END
`
}

/** Removes links and namespaces, whichever of them exist. The kernel drops rules, taps and tracked connections with the namespace. */
export async function removeSlots(names: readonly string[]): Promise<void> {
  if (names.length === 0) return
  const links = new Set((await listLinks()).map(({ name }) => name))
  const namespaces = new Set(await listNamespaces())
  const commands = names.flatMap((name) => [
    ...(links.has(name) ? [`link del ${name}`] : []),
    ...(namespaces.has(name) ? [`netns del ${name}`] : []),
  ])
  if (commands.length > 0) await run('ip', ['-force', '-batch', '-'], { input: `${commands.join('\n')}\n` })
}

/** Loads an nftables script inside a slot's namespace, as one transaction. @throws AppError `engine_failure` */
export async function loadInSlot(name: string, rules: string): Promise<void> {
  await run('nsenter', [`--net=${NAMESPACE_DIR}/${name}`, 'nft', '-f', '-'], { input: rules })
}

/**
 * Drops what the host still tracks of a slot's connections; the namespace's own went with it. Needs the `conntrack` package: without it they
 * stay until they time out.
 */
export async function forgetConnections(guestAddress: string): Promise<void> {
  const remove = (side: string): string => `conntrack --delete ${side} ${guestAddress}`
  const script = `command -v conntrack || exit 0; ${remove('--src')}; ${remove('--dst')}; exit 0`
  await run('sh', ['-c', script])
}

/** Named network namespaces of this machine, others' too. */
export async function listNamespaces(): Promise<readonly string[]> {
  try {
    return await readdir(NAMESPACE_DIR)
  } catch (error) {
    // Nobody has made a namespace since boot.
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}

interface Link {
  readonly name: string
  readonly alias: string
}

/** The root namespace's links, from sysfs. */
export async function listLinks(): Promise<readonly Link[]> {
  const names = await readdir('/sys/class/net')
  return await Promise.all(names.map(async (name) => ({ name, alias: await aliasOf(name) })))
}

async function aliasOf(link: string): Promise<string> {
  try {
    return (await readFile(`/sys/class/net/${link}/ifalias`, 'utf8')).trim()
  } catch (error) {
    // `bonding_masters` is a file here; and links vanish while we look.
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ENODEV')) return ''
    throw error
  }
}

/** Writes a link's label through sysfs: no process on the way to a running capsule. */
export async function setAlias(link: string, label: string): Promise<void> {
  await writeFile(`/sys/class/net/${link}/ifalias`, label)
}
