import { formatCidr, neverRanges } from '@wrenn/base'
import { GUEST_AGENT_PORT } from '@wrenn/protocol'
import type { SlotAddresses, SlotRange } from './address.js'
import { filterLink } from './own-links.js'
import { privateRanges, type ResolvedPolicy, usesFilter } from './policy.js'

/** Of every guest, each in its own namespace: link-local (RFC 3927), so that it meets no real network. */
export const GUEST_ADDRESS = '169.254.0.21'
/** The namespace's side of the tap: the guest's gateway, in every namespace the same. */
export const GATEWAY_ADDRESS = '169.254.0.22'

/** The slot's end of the link to the filter's namespace, made with the first policy that has names. */
export const TO_FILTER = 'flt0'
/**
 * Of packets, for the route to the filter, and of connections that go there, for as long as they last. Marks of policies are odd.
 */
export const FILTER_MARK = 2

/** What was used without the filter by a capsule that learns: targets of TCP and UDP, and of pings. */
export const USED_SETS = { ports: 'used', pings: 'pinged' } as const
/** Targets in each of the two. */
export const MAXIMUM_USED = 256

/** The slots' links are `<prefix>-<n>`; a prefix has no dash, so two platforms' patterns never meet. */
const slotLinks = (prefix: string): string => `"${prefix}-*"`

/** One guest must not fill the connection table it shares with the whole host (262,144 entries by default). */
const MAXIMUM_CONNECTIONS = 4096

/**
 * Questions to the DNS forwarder, a look-up being two. What is above is dropped here, before it takes the place of other guests'
 * questions in the forwarder's socket; resolvers ask again.
 */
const QUESTIONS_PER_SECOND = 1000
const QUESTIONS_AT_ONCE = 5000
/** Each question has a socket, and so a tracked connection, of its own: they go when the resolver has given up, not after 30 s. */
const QUESTION_S = 10

/**
 * How long the host remembers a silent TCP connection of a capsule, instead of the kernel's five days: those that a capsule leaves
 * behind must not pile up, one that sends keep-alives lives for ever.
 */
const IDLE_CONNECTION_S = 7200

/** Rules that answer instead of dropping, so that a refused connection fails at once. */
const refuseChain = `
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmpx type admin-prohibited
  }`

function set(name: string, elements: readonly string[]): string {
  return `
  set ${name} {
    type ipv4_addr
    flags interval
    auto-merge${elementsOf(elements)}
  }`
}

function elementsOf(elements: readonly string[]): string {
  return elements.length > 0 ? `\n    elements = { ${elements.join(', ')} }` : ''
}

function pairs(slotAddress: string, networks: readonly string[]): readonly string[] {
  return networks.map((network) => `${slotAddress} . ${network}`)
}

/** By the slots' addresses: the networks inside the private ranges that they may reach. */
export type Exceptions = ReadonlyMap<string, readonly string[]>

/** Who else than the slots is let through, and where to. */
export interface RootPolicy {
  readonly exceptions: Exceptions
  /** User of the control plane: it may connect to everything in guests but their agents. */
  readonly callerUid: number
}

/**
 * The tables of the root namespace, replacing what was there in one transaction. What `exceptions` lets through is never cut. An end
 * of what was let through gets out to a private network that no longer is: its peer is told.
 */
export function rootRules(prefix: string, range: SlotRange, { exceptions, callerUid }: RootPolicy): string {
  const links = slotLinks(prefix)
  const filter = `"${filterLink(prefix)}"`
  const cidr = formatCidr(range.cidr)
  return `table inet ${prefix}
delete table inet ${prefix}
table inet ${prefix} {
${set('never', [...neverRanges, cidr])}
${set('private', privateRanges)}
  set exceptions {
    type ipv4_addr . ipv4_addr
    flags interval${elementsOf([...exceptions].flatMap(([slot, networks]) => pairs(slot, networks)))}
  }
  ct timeout slots {
    protocol tcp
    l3proto ip
    policy = { established: ${IDLE_CONNECTION_S} }
  }
${refuseChain}
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    iifname ${links} meta nfproto ipv6 drop
    iifname ${links} fib saddr . iif oif missing drop
    iifname ${filter} meta nfproto ipv6 drop
    iifname ${filter} ip saddr != ${range.filter} drop
    iifname != { "lo", ${filter} } iifname != ${links} ip daddr ${cidr} fib daddr type local drop
    iifname ${links} ip daddr ${range.dns} udp dport 53 notrack
  }
  chain answers {
    type filter hook output priority raw; policy accept;
    oifname ${links} ip saddr ${range.dns} udp sport 53 notrack
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname ${links} jump from_slot
    iifname ${filter} jump from_slot
  }
  chain from_slot {
    ct state established,related accept
    ip daddr ${range.dns} meta l4proto { tcp, udp } th dport 53 accept
    jump refuse
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname ${links} jump outward
    iifname ${filter} jump from_filter
    oifname ${links} jump inward
    oifname ${filter} jump inward
  }
  chain inward {
    ct state established,related accept
    drop
  }
  chain from_filter {
    oifname ${links} jump refuse
    ct status dnat jump refuse
    ip daddr @never jump refuse
    ip daddr @private jump refuse
    meta l4proto tcp ct timeout set "slots"
    meta l4proto tcp accept
    ct state related accept
    jump refuse
  }
  chain outward {
    meta l4proto tcp ct timeout set "slots"
    oifname ${links} jump refuse
    ct status dnat jump refuse
    ip daddr @never jump refuse
    ip saddr . ip daddr @exceptions accept
    ct state established tcp flags & rst == rst accept
    ct state related icmp type destination-unreachable accept
    ip daddr @private jump refuse
    accept
  }
  chain output {
    type filter hook output priority filter; policy accept;
    oifname ${links} meta skuid ${callerUid} tcp dport != ${GUEST_AGENT_PORT} accept
    oifname ${links} meta skuid != 0 jump refuse
    oifname ${filter} ct state new jump refuse
  }
  chain source {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${cidr} oifname != ${links} oifname != ${filter} masquerade
  }
}
`
}

/**
 * The table of one slot's namespace, replacing what was there in one transaction: denies everything until a policy is loaded. Every
 * packet of the guest's connections passes `decide`, in both directions, so that a stricter policy also ends what is already
 * connected: whoever sends next gets a reset. A connection that this namespace does not know (the guest was saved elsewhere, or its
 * entry was dropped) is invalid by the settings of `makeSlot`, and answered with a reset, too.
 */
export function slotRules(range: SlotRange, addresses: SlotAddresses): string {
  return `table inet wrenn
delete table inet wrenn
table inet wrenn {
${set('never', [...neverRanges, formatCidr(range.cidr)])}
${set('private', privateRanges)}
  set ${USED_SETS.ports} {
    type inet_proto . ipv4_addr . inet_service
    size ${MAXIMUM_USED}
    flags dynamic
    counter
  }
  set ${USED_SETS.pings} {
    type ipv4_addr
    size ${MAXIMUM_USED}
    flags dynamic
    counter
  }
  ct timeout questions {
    protocol udp
    l3proto ip
    policy = { unreplied: ${QUESTION_S}, replied: ${QUESTION_S} }
  }
${refuseChain}
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    meta nfproto ipv6 drop
    iifname "tap0" ip saddr != ${GUEST_ADDRESS} drop
    iifname "eth0" ip daddr != ${addresses.guest} drop
    iifname "eth0" ip saddr 169.254.0.0/16 drop
    iifname "${TO_FILTER}" ip daddr != ${addresses.guest} drop
  }
  chain route {
    type filter hook prerouting priority mangle; policy accept;
    iifname "tap0" meta l4proto tcp ct direction original jump choose
  }
  chain choose {
    ct mark ${FILTER_MARK} meta mark set ${FILTER_MARK} return
    ct state new ip daddr != @never jump by_name
  }
  chain by_name {
  }
  chain target {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "tap0" ip daddr ${GATEWAY_ADDRESS} meta l4proto { tcp, udp } th dport 53 dnat ip to ${range.dns}
    iifname "eth0" ip saddr ${addresses.host} meta l4proto { tcp, udp } dnat ip to ${GUEST_ADDRESS}
  }
  chain source {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "tap0" snat ip to ${GATEWAY_ADDRESS}
    oifname "eth0" snat ip to ${addresses.guest}
    oifname "${TO_FILTER}" snat ip to ${addresses.guest}
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "tap0" jump refuse
    iifname "eth0" meta l4proto tcp reject with tcp reset
  }
  chain output {
    type filter hook output priority filter; policy drop;
    ct state established,related accept
    tcp flags & rst == rst accept
    oifname "tap0" icmp type { destination-unreachable, time-exceeded } accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "eth0" oifname "tap0" ip saddr ${addresses.host} ct direction original ct status dnat accept
    iifname "eth0" oifname "tap0" ct state established,related jump inward
    iifname "tap0" oifname "eth0" ct direction reply ct state established,related accept
    iifname "tap0" oifname "eth0" jump egress
    iifname "tap0" oifname "${TO_FILTER}" jump to_filter
    iifname "${TO_FILTER}" oifname "tap0" ct mark ${FILTER_MARK} ct direction reply accept
    iifname "${TO_FILTER}" oifname "tap0" ct state related accept
  }
  chain to_filter {
    ct state invalid jump refuse
    ct state new ct count over ${MAXIMUM_CONNECTIONS} jump refuse
    tcp flags syn tcp option maxseg size set rt mtu
    ct mark ${FILTER_MARK} accept
    jump refuse
  }
  chain egress {
    ct state invalid meta l4proto tcp reject with tcp reset
    ct state invalid drop
    tcp flags syn tcp option maxseg size set rt mtu
    ip daddr ${range.dns} udp dport 53 jump questions
    ct state new ct count over ${MAXIMUM_CONNECTIONS} jump refuse
    ip daddr ${range.dns} tcp dport 53 jump names
    ip daddr @never jump refuse
    jump decide
    jump refuse
  }
  chain inward {
    ct status dnat accept
    jump decide
    jump refuse
  }
  chain questions {
    limit rate over ${QUESTIONS_PER_SECOND}/second burst ${QUESTIONS_AT_ONCE} packets drop
    ct timeout set "questions"
    jump names
  }
  chain names {
  }
  chain decide {
  }
}
`
}

/**
 * Changes a slot's table to `policy` in one transaction: a packet meets the rules before it or those after it, never a mixture. A
 * `fresh` table needs no removals, which is what makes a kernel wait (about 20 ms against 5).
 *
 * Rules, not sets, hold the entries: before Linux 6.17 a look-up in a set may miss, for a moment, what a transaction leaves in it. As
 * connections are marked by the first rule that lets them through, only their first packets pass more than one.
 */
export function policyRules(policy: ResolvedPolicy, fresh: boolean): string {
  const accept = `ct mark set ${policy.mark} accept`
  const to = (networks: readonly string[], verdict: string): string[] =>
    networks.flatMap((network) => [
      ...noted(policy, verdict === accept, `ct original ip daddr ${network} `),
      `ct original ip daddr ${network} counter ${verdict}`,
    ])
  const rules = [
    // HTTP/3, which would get around the filter, before what is open by that already. Clients fall back to TCP.
    ...(policy.intercept
      ? ['meta l4proto udp ct original proto-dst 443 ct original ip daddr != @private counter return']
      : []),
    `ct mark ${policy.mark} accept`,
    ...to(policy.allowPrivate, accept),
    ...to(['@private'], 'return'),
    ...to(policy.allow, accept),
    ...to(policy.deny, 'return'),
    // What may not go by its address alone and says no name. TCP that does has gone to the filter before it comes here.
    ...(policy.denyNames.length > 0 ? ['meta l4proto != icmp counter return'] : []),
    ...noted(policy, policy.internet, ''),
    `counter ${policy.internet ? accept : 'return'}`,
  ]
  return [
    ...(fresh ? [] : ['decide', 'names', 'by_name'].map((chain) => `flush chain inet wrenn ${chain}`)),
    ...(fresh || policy.learn ? [] : Object.values(USED_SETS).map((set) => `flush set inet wrenn ${set}`)),
    ...(policy.names ? ['add rule inet wrenn names accept'] : []),
    ...rules.map((rule) => `add rule inet wrenn decide ${rule}`),
    ...nameRules(policy).map((rule) => `add rule inet wrenn by_name ${rule}`),
    '',
  ].join('\n')
}

/** Before a rule that lets through: notes where to. A full set fails its own rule alone. */
function noted({ learn }: ResolvedPolicy, letsThrough: boolean, condition: string): readonly string[] {
  if (!learn || !letsThrough) return []
  const outward = `${condition}ct direction original`
  return [
    `${outward} meta l4proto { tcp, udp } add @${USED_SETS.ports} { meta l4proto . ip daddr . th dport }`,
    `${outward} meta l4proto icmp add @${USED_SETS.pings} { ip daddr }`,
  ]
}

/** Which new connections go to the filter: those of which the address alone does not decide, and all that are to be noted. */
function nameRules(policy: ResolvedPolicy): readonly string[] {
  if (!usesFilter(policy)) return []
  const filter = `meta mark set ${FILTER_MARK} ct mark set ${FILTER_MARK} return`
  const to = (networks: readonly string[], verdict: string): string[] =>
    networks.map((network) => `ip daddr ${network} ${verdict}`)
  const denied = policy.allowNames.length > 0 ? filter : 'return'
  const open = policy.watched || policy.denyNames.length > 0 ? filter : 'return'
  return [
    ...to(policy.allowPrivate, 'return'),
    ...to(['@private'], 'return'),
    ...to(policy.allow, policy.watched ? filter : 'return'),
    ...to(policy.deny, denied),
    policy.internet ? open : denied,
  ]
}

/** Changes what one slot may reach of the private ranges in the root table; empty when nothing changes. What stays is not touched. */
export function exceptionRules(
  prefix: string,
  slotAddress: string,
  before: readonly string[],
  after: readonly string[],
): string {
  const change = (verb: 'add' | 'delete', networks: readonly string[]): string => {
    const elements = pairs(slotAddress, networks).join(', ')
    return elements === '' ? '' : `${verb} element inet ${prefix} exceptions { ${elements} }\n`
  }
  const without = (networks: readonly string[], others: readonly string[]) =>
    networks.filter((network) => !others.includes(network))
  return change('delete', without(before, after)) + change('add', without(after, before))
}
