import { access } from 'node:fs/promises'
import { z } from 'zod'
import { run, runForResult } from '../exec.js'

/** Where the filter's transparent socket listens, for whatever port a guest asks. */
export const FILTER_PORT = 15_001
/** The filter's end of its link to the root namespace. */
const UPLINK = 'up0'
/** The filter's ends of the slots' links are `s<n>`. */
const slotLink = (index: number): string => `s${index}`
const DIVERTED = 1
const DIVERTED_TABLE = 100
/** Of a slot's namespace: routes of what goes to the filter. */
const SLOT_TABLE = 77
/** Between a slot and the filter; both ends know each other without asking. */
const NEXT_HOP = '169.254.1.1'
const FILTER_MAC = '02:57:52:00:01:01'
const SLOT_MAC = '02:57:52:00:01:02'
/** What the kernel may keep of one connection in each direction. */
const MAXIMUM_SOCKET_BYTES = 256 * 1024

/** The filter's place in the network. */
export interface FilterPlan {
  /** Of the namespace, and of its link in the root namespace. */
  readonly name: string
  /** Its own address, behind which its connections go out. */
  readonly address: string
  readonly dnsAddress: string
  readonly mtu: number
  readonly uid: number
  readonly label: string
}

/** A slot that is to be linked with the filter. */
export interface LinkedSlot {
  readonly index: number
  readonly namespace: string
  /** What the filter knows it by. */
  readonly address: string
  readonly mark: number
  /** Name of the slot's end. */
  readonly link: string
}

const inside = (name: string): readonly string[] => [`--net=/run/netns/${name}`]

/** Makes the namespace with its rules and its link, unless it is there. One that fails is removed. */
export async function makeFilterNamespace(plan: FilterPlan): Promise<void> {
  if (await hasNamespace(plan.name)) return
  try {
    await run('ip', ['-batch', '-'], { input: rootCommands(plan) })
    await run('nsenter', [...inside(plan.name), 'sh', '-s'], { input: namespaceScript(plan) })
  } catch (error) {
    await removeFilterNamespace(plan.name)
    throw error
  }
}

function rootCommands({ name, address, mtu, label }: FilterPlan): string {
  return [
    `netns add ${name}`,
    `link add ${name} mtu ${mtu} type veth peer name ${UPLINK} mtu ${mtu} netns ${name}`,
    `link set ${name} alias "${label}"`,
    `link set ${name} up`,
    `route replace ${address}/32 dev ${name}`,
    '',
  ].join('\n')
}

function namespaceScript(plan: FilterPlan): string {
  const { address, dnsAddress } = plan
  return `set -e
for conf in all default; do
  [ ! -e /proc/sys/net/ipv6/conf/$conf/disable_ipv6 ] || echo 1 > /proc/sys/net/ipv6/conf/$conf/disable_ipv6
  echo 0 > /proc/sys/net/ipv4/conf/$conf/rp_filter
done
echo 4096 > /proc/sys/net/core/somaxconn
echo 4096 65536 ${MAXIMUM_SOCKET_BYTES} > /proc/sys/net/ipv4/tcp_rmem
echo 4096 65536 ${MAXIMUM_SOCKET_BYTES} > /proc/sys/net/ipv4/tcp_wmem
nft -f - <<'END'
${filterRules(plan)}END
exec ip -batch - <<'END'
link set lo up
addr add ${address}/32 dev ${UPLINK}
link set ${UPLINK} up
route add default via ${dnsAddress} dev ${UPLINK} onlink
rule add fwmark ${DIVERTED} lookup ${DIVERTED_TABLE}
route add local default dev lo table ${DIVERTED_TABLE}
END
`
}

/** What comes from slots ends at the filter's socket whatever its address is, or is refused while nobody listens there. */
function filterRules({ uid, dnsAddress }: FilterPlan): string {
  return `table inet wrenn {
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    meta nfproto ipv6 drop
    iifname "s*" fib saddr . iif oif missing drop
  }
  chain divert {
    type filter hook prerouting priority mangle; policy accept;
    iifname != "s*" return
    meta l4proto tcp tproxy ip to :${FILTER_PORT} meta mark set ${DIVERTED} accept
    meta l4proto tcp reject with tcp reset
    drop
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "s*" meta mark ${DIVERTED} accept
    iifname "${UPLINK}" tcp flags & (syn | ack) == syn drop
    iifname "${UPLINK}" accept
  }
  chain output {
    type filter hook output priority filter; policy drop;
    oifname "s*" accept
    oifname "${UPLINK}" meta l4proto tcp accept
    oifname "${UPLINK}" meta skuid ${uid} ip daddr ${dnsAddress} udp dport 53 accept
  }
}
`
}

/** Links a slot with the filter, unless it is. */
export async function linkSlot(filter: string, slot: LinkedSlot, mtu: number): Promise<void> {
  const name = slotLink(slot.index)
  const veth = `link add ${name} address ${FILTER_MAC} mtu ${mtu} netns ${filter} type veth`
  await run('ip', ['-batch', '-'], {
    input: `${veth} peer name ${slot.link} address ${SLOT_MAC} mtu ${mtu} netns ${slot.namespace}\n`,
  })
  try {
    await run('nsenter', [...inside(slot.namespace), 'sh', '-s'], { input: slotScript(slot) })
    const commands = [
      `link set ${name} up`,
      `route replace ${slot.address}/32 dev ${name}`,
      `neigh replace ${slot.address} lladdr ${SLOT_MAC} dev ${name} nud permanent`,
      '',
    ]
    await run('ip', ['-n', filter, '-batch', '-'], { input: commands.join('\n') })
  } catch (error) {
    await run('ip', ['-n', filter, 'link', 'del', name])
    throw error
  }
}

/** Answers come from anywhere by the link; and where there is none, what should go by it goes nowhere. */
function slotScript({ link, mark }: LinkedSlot): string {
  return `set -e
for conf in all default ${link}; do
  echo 0 > /proc/sys/net/ipv4/conf/$conf/rp_filter
done
ip rule del fwmark ${mark} lookup ${SLOT_TABLE} 2>/dev/null || true
exec ip -batch - <<'END'
link set ${link} up
neigh replace ${NEXT_HOP} lladdr ${FILTER_MAC} dev ${link} nud permanent
route replace default via ${NEXT_HOP} dev ${link} onlink table ${SLOT_TABLE}
route replace unreachable default metric 4096 table ${SLOT_TABLE}
rule add fwmark ${mark} lookup ${SLOT_TABLE}
END
`
}

const links = z.array(z.object({ ifname: z.string().optional() }))

/** The slots that are linked with the filter; none where it has no namespace. */
export async function linkedSlots(name: string): Promise<readonly number[]> {
  const { exitCode, stdout } = await runForResult('ip', ['-n', name, '-json', 'link', 'show'])
  if (exitCode !== 0) return []
  return links.parse(JSON.parse(stdout)).flatMap(({ ifname = '' }) => {
    const index = /^s(\d+)$/.exec(ifname)?.[1]
    return index === undefined ? [] : [Number(index)]
  })
}

/** Processes in the namespace. */
export async function filterProcesses(name: string): Promise<readonly number[]> {
  const { exitCode, stdout } = await runForResult('ip', ['netns', 'pids', name])
  return exitCode === 0
    ? stdout
        .split('\n')
        .filter((line) => line !== '')
        .map(Number)
    : []
}

/** Removes the namespace with its links; what runs in it keeps it until it ends. */
export async function removeFilterNamespace(name: string): Promise<void> {
  await runForResult('ip', ['link', 'del', name])
  if (await hasNamespace(name)) await run('ip', ['netns', 'del', name])
}

/** Whether it is there, whoever made it. */
export async function hasNamespace(name: string): Promise<boolean> {
  return await access(`/run/netns/${name}`).then(
    () => true,
    () => false,
  )
}
