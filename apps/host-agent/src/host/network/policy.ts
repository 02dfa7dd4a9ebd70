import { createHash } from 'node:crypto'
import { AppError, type Cidr, contains, formatCidr, neverRangeOf, neverRanges, overlaps, parseCidr } from '@wrenn/base'
import { everything, type Intervals, intervalsOf, union, without } from './intervals.js'

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
  /** All that it lets through; the rules in the kernel say the same. */
  readonly permitted: Intervals
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
  const open = allow.filter((cidr) => !isPrivate(cidr))
  const allowPrivate = allow.filter(isPrivate)
  const permitted = permittedBy({ internet: policy.internet, open, allowPrivate, deny })
  return {
    internet: policy.internet,
    // Names are of no use without anything to connect to, and a resolver is a way out.
    names: permitted.length > 0,
    allow: texts(open),
    allowPrivate: texts(allowPrivate),
    deny: texts(deny),
    permitted,
    mark: markOf(policy),
  }
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

function parseEntry(list: 'allow' | 'deny', entry: string): Cidr {
  const cidr = parseCidr(entry)
  if (cidr) return cidr
  const rule = 'takes IPv4 addresses and networks such as 203.0.113.0/24; domain names are not supported yet'
  throw new AppError('invalid_request', `egress.${list} ${rule}: "${entry}".`, { details: { list, entry } })
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
