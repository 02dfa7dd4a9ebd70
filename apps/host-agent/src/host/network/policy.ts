import { AppError } from '@wrenn/base'
import { type Cidr, contains, formatCidr, overlaps, parseCidr } from './address.js'

/** What a capsule may reach. The host and other capsules stay out of reach whatever it says. */
export interface EgressPolicy {
  /** Internet allowed unless denied; false: only what `allow` lists. */
  readonly internet: boolean
  /** IPv4 addresses and networks; beats `deny`. A private one must be named as such: `0.0.0.0/0` opens no private range. */
  readonly allow: readonly string[]
  readonly deny: readonly string[]
}

/** A policy as the rule sets need it. */
export interface ResolvedPolicy {
  readonly internet: boolean
  readonly names: boolean
  readonly allow: readonly string[]
  readonly allowPrivate: readonly string[]
  readonly deny: readonly string[]
}

/**
 * Never reachable through the guest's gateway: "this" network, loopback, link-local with the cloud's metadata service, multicast,
 * reserved and broadcast. https://www.iana.org/assignments/iana-ipv4-special-registry
 */
export const neverRanges = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '240.0.0.0/4'] as const

/** Reachable only when the policy names a part of them. */
export const privateRanges = [
  '10.0.0.0/8',
  '100.64.0.0/10',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
] as const

/** Bounds the rule set a caller can make us load. */
const MAXIMUM_ENTRIES = 1000

/**
 * @throws AppError `invalid_request` naming the entry that is no IPv4 address or network, or that can never be allowed.
 */
export function resolvePolicy(policy: EgressPolicy): ResolvedPolicy {
  const allow = policy.allow.map((entry) => parseEntry('allow', entry))
  const deny = policy.deny.map((entry) => parseEntry('deny', entry))
  if (allow.length + deny.length > MAXIMUM_ENTRIES) {
    throw new AppError('invalid_request', `An egress policy takes up to ${MAXIMUM_ENTRIES} entries in allow and deny.`)
  }
  for (const cidr of allow) refuseNever(cidr)
  return {
    internet: policy.internet,
    // Names are of no use without anything to connect to, and a resolver is a way out.
    names: policy.internet || allow.length > 0,
    allow: texts(allow.filter((cidr) => !isPrivate(cidr))),
    allowPrivate: texts(allow.filter(isPrivate)),
    deny: texts(deny),
  }
}

function parseEntry(list: 'allow' | 'deny', entry: string): Cidr {
  const cidr = parseCidr(entry)
  if (cidr) return cidr
  const rule = 'takes IPv4 addresses and networks such as 203.0.113.0/24; domain names are not supported yet'
  throw new AppError('invalid_request', `egress.${list} ${rule}: "${entry}".`, { details: { list, entry } })
}

function refuseNever(cidr: Cidr): void {
  const never = neverRanges.find((range) => contains(cidrOf(range), cidr))
  if (never === undefined) return
  const message = `egress.allow cannot open ${formatCidr(cidr)}: ${never} is never reachable from a capsule.`
  throw new AppError('invalid_request', message, { details: { entry: formatCidr(cidr) } })
}

function isPrivate(cidr: Cidr): boolean {
  return privateRanges.some((range) => contains(cidrOf(range), cidr))
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
