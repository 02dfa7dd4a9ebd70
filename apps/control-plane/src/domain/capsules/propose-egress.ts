import { parseAddress, parseDomain } from '@wrenn/base'
import { destinationProtocols, type EgressPolicy, type Learned, MAX_EGRESS_ENTRIES, nameSources } from '@wrenn/protocol'
import type { Destination } from '@wrenn/protocol/host'

type Used = Learned['destinations'][number]

/** Of HTTP/3, whose clients fall back to TCP where it is refused. */
const QUIC_PORT = 443

/**
 * As the API shows it.
 * @param destinations the most used first, which have room before others
 * @param rules of the policy that learns, which go on
 */
export function toLearned(
  destinations: readonly Destination[],
  isComplete: boolean,
  rules?: EgressPolicy['rules'],
): Learned {
  const used = destinations.flatMap(toUsed)
  const entries = [...new Set(used.flatMap(entriesFor))]
  const proposal = { ...proposalOf(entries.slice(0, MAX_EGRESS_ENTRIES)), ...(rules && { rules }) }
  return { destinations: used, complete: isComplete && entries.length <= MAX_EGRESS_ENTRIES, proposal }
}

/** A protocol that this version does not know is none that a policy could be made of. */
function toUsed({ protocol, name, namedBy, address, port, count }: Destination): readonly Used[] {
  const known = destinationProtocols.find((each) => each === protocol)
  const named_by = nameSources.find((each) => each === namedBy)
  if (known === undefined) return []
  return [{ protocol: known, ...(name && named_by && { name, named_by }), address, port, count: Number(count) }]
}

/**
 * What has to be in `allow` for this to pass. A connection that says its name needs that alone; what says none needs its address, and
 * whoever asked for that by name needs the answer again.
 */
function entriesFor({ protocol, name, named_by: by, address, port }: Used): readonly string[] {
  const domain = name === undefined || name.startsWith('*') ? undefined : parseDomain(name)
  if (domain === undefined) return [address]
  if (by === 'connection' || (protocol === 'udp' && port === QUIC_PORT)) return [domain]
  return [domain, address]
}

/** Names by the alphabet, then addresses by their numbers. */
function proposalOf(entries: readonly string[]): EgressPolicy {
  const names = entries.filter((entry) => parseAddress(entry) === undefined).sort()
  const addresses = entries.filter((entry) => parseAddress(entry) !== undefined)
  const inOrder = addresses.sort((a, b) => (parseAddress(a) ?? 0) - (parseAddress(b) ?? 0))
  return { internet: false, allow: [...names, ...inOrder], deny: [] }
}
