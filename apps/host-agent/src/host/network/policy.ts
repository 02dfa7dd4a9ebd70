import { createHash } from 'node:crypto'
import {
  AppError,
  type Cidr,
  contains,
  formatCidr,
  neverRangeOf,
  neverRanges,
  overlaps,
  parseCidr,
  parseDomain,
} from '@wrenn/base'
import { everything, find, type Intervals, intervalsOf, union, without } from './intervals.js'

/** Headers for requests by TLS to a host: `example.org`, or `*.example.org` for all names below it. */
export interface EdgeRule {
  readonly host: string
  /** Names in lower case, with what they are set to. */
  readonly headers: Readonly<Record<string, string>>
}

/** What a capsule may reach. The host and other capsules stay out of reach whatever it says. */
export interface EgressPolicy {
  /** Internet allowed unless denied; false: only what `allow` lists. */
  readonly internet: boolean
  /**
   * IPv4 addresses, networks and domains; beats `deny`. A private network must be named as such: neither `0.0.0.0/0` nor a name opens
   * a private range.
   */
  readonly allow: readonly string[]
  readonly deny: readonly string[]
  /** Whether what it lets through is noted, place by place. @default false */
  readonly learn?: boolean | undefined
  /** Whether there are rules, also where their values are not known yet: those are in memory alone. @default false */
  readonly intercept?: boolean | undefined
  readonly rules?: readonly EdgeRule[] | undefined
  /** Speaks for the hosts of rules toward the guest, which trusts it. */
  readonly authority?: { readonly cert: string; readonly key: string } | undefined
}

/** A policy as the rule sets need it. */
export interface ResolvedPolicy {
  readonly internet: boolean
  readonly names: boolean
  readonly allow: readonly string[]
  readonly allowPrivate: readonly string[]
  readonly deny: readonly string[]
  /** Domains, as `parseDomain` gives them: where they decide, the filter does. */
  readonly allowNames: readonly string[]
  readonly denyNames: readonly string[]
  /** All that it lets through by address alone; the rules in the kernel say the same. */
  readonly permitted: Intervals
  /** Those of `permitted` of which no name decides. */
  readonly permittedByAddress: Intervals
  readonly learn: boolean
  /** Whether all that names do not decide goes to the filter all the same. */
  readonly watched: boolean
  /** Whether requests to some hosts are to be seen, so that none may go by what the filter does not see. */
  readonly intercept: boolean
  /**
   * Put on each connection that this policy lets through, so that the next packets need no second look and a connection of another
   * policy is seen as one. Made of the policy alone: a restart of the host agent comes to the same.
   */
  readonly mark: number
}

/** Reachable only when the policy names a part of them. */
export const privateRanges = [
  '10.0.0.0/8',
  '100.64.0.0/10',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
] as const

const privateNetworks = privateRanges.map(cidrOf)
const privateIntervals = intervalsOf(privateNetworks)
const neverIntervals = intervalsOf(neverRanges.map(cidrOf))
const publicIntervals = without(everything, union(privateIntervals, neverIntervals))

/** Bounds the rule set a caller can make us load. */
const MAXIMUM_ENTRIES = 1000

/**
 * @throws AppError `invalid_request` naming the entry that is no IPv4 address or network, or that can never be allowed.
 */
export function resolvePolicy(policy: EgressPolicy): ResolvedPolicy {
  if (policy.allow.length + policy.deny.length > MAXIMUM_ENTRIES) {
    throw new AppError('invalid_request', `An egress policy takes up to ${MAXIMUM_ENTRIES} entries in allow and deny.`)
  }
  const { networks: allow, names: allowNames } = parseList('allow', policy.allow)
  const { networks: deny, names: denyNames } = parseList('deny', policy.deny)
  for (const cidr of allow) refuseNever(cidr)
  const open = allow.filter((cidr) => !isPrivate(cidr))
  const allowPrivate = allow.filter(isPrivate)
  const permitted = permittedBy({ internet: policy.internet, open, allowPrivate, deny })
  return {
    internet: policy.internet,
    // Names are of no use without anything to connect to, and a resolver is a way out.
    names: permitted.length > 0 || allowNames.length > 0,
    allow: texts(open),
    allowPrivate: texts(allowPrivate),
    deny: texts(deny),
    allowNames,
    denyNames,
    permitted,
    permittedByAddress: denyNames.length === 0 ? permitted : without(intervalsOf(allow), neverIntervals),
    learn: policy.learn === true,
    watched: policy.learn === true || policy.intercept === true,
    intercept: policy.intercept === true,
    mark: markOf(policy),
  }
}

/** Whether anything of the policy is decided by name. */
export function hasNames({ allowNames, denyNames }: ResolvedPolicy): boolean {
  return allowNames.length > 0 || denyNames.length > 0
}

/** Whether new connections to public addresses pass the filter: because a name decides, to be noted, or for rules. */
export function usesFilter(policy: ResolvedPolicy): boolean {
  return policy.watched || hasNames(policy)
}

/** Whether an address is neither of a private range nor of one that is never reachable. */
export function isPublic(address: number): boolean {
  return find(publicIntervals, address) !== undefined
}

interface Networks {
  readonly internet: boolean
  readonly open: readonly Cidr[]
  readonly allowPrivate: readonly Cidr[]
  readonly deny: readonly Cidr[]
}

function permittedBy({ internet, open, allowPrivate, deny }: Networks): Intervals {
  const allowed = union(internet ? without(everything, intervalsOf(deny)) : [], intervalsOf(open))
  return without(union(without(allowed, privateIntervals), intervalsOf(allowPrivate)), neverIntervals)
}

/** Never 0, which is what the kernel puts on a connection that nobody has marked. */
function markOf({ internet, allow, deny }: EgressPolicy): number {
  const text = JSON.stringify([internet, allow, deny])
  return (createHash('sha256').update(text).digest().readUInt32BE(0) | 1) >>> 0
}

function parseList(list: 'allow' | 'deny', entries: readonly string[]) {
  const networks: Cidr[] = []
  const names = new Set<string>()
  for (const entry of entries) {
    const cidr = parseCidr(entry)
    const name = parseDomain(entry)
    if (cidr !== undefined) networks.push(cidr)
    else if (name !== undefined) names.add(name)
    else throw noEntry(list, entry)
  }
  return { networks, names: [...names] }
}

function noEntry(list: 'allow' | 'deny', entry: string): AppError {
  const rule = 'takes IPv4 addresses, networks such as 203.0.113.0/24 and domains such as example.org or *.example.org'
  return new AppError('invalid_request', `egress.${list} ${rule}: "${entry}".`, { details: { list, entry } })
}

function refuseNever(cidr: Cidr): void {
  const never = neverRangeOf(cidr)
  if (never === undefined) return
  const message = `egress.allow cannot open ${formatCidr(cidr)}: ${never} is never reachable from a capsule.`
  throw new AppError('invalid_request', message, { details: { entry: formatCidr(cidr) } })
}

function isPrivate(cidr: Cidr): boolean {
  return privateNetworks.some((network) => contains(network, cidr))
}

function cidrOf(range: string): Cidr {
  const cidr = parseCidr(range)
  if (!cidr) throw new Error(`not a network: ${range}`)
  return cidr
}

/** Drops what another entry covers: nft refuses overlapping elements in the sets that have no auto-merge. */
function texts(cidrs: readonly Cidr[]): readonly string[] {
  const wideFirst = [...cidrs].sort((a, b) => a.bits - b.bits)
  const kept: Cidr[] = []
  for (const cidr of wideFirst) if (!kept.some((other) => overlaps(other, cidr))) kept.push(cidr)
  return kept.map(formatCidr)
}
