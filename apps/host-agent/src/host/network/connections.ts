import { errorText, formatCidr, type Logger, parseAddress } from '@wrenn/base'
import { run } from '../exec.js'
import { everything, find, type Interval, networkAround, union, without } from './intervals.js'
import type { ResolvedPolicy } from './policy.js'
import { GATEWAY_ADDRESS, GUEST_ADDRESS } from './rules.js'

/** All of it: the change of the policy waits. */
const TIMEOUT_MS = 3_000
/** How long the host still carries the resets of what was ended, instead of the hours that it remembers a silent connection. */
const LAST_WORDS_S = 10

/** By address alone: connections of the filter, whose mark is even, are its own to end. */
const TRACKED = `-f ipv4 --mark 1/1 --orig-src ${GUEST_ADDRESS}`

/** `conntrack -L` prints the addresses of a connection's first packet first. */
const ORIGINAL = new RegExp(`^.*? src=${GUEST_ADDRESS} dst=([\\d.]+) `, 'gm')

/** Whose connections are looked through. */
export interface Tracked {
  readonly namespace: string
  /** What the host tracks the guest's connections by. */
  readonly slotAddress: string
  /** Name servers, which the host is and the policy does not speak of. */
  readonly dnsAddress: string
}

/**
 * Drops what is tracked of connections that a policy does not let through: the rules refuse their packets already, and this gives
 * their places back, in the slot at once, on the host when the last resets are through. Never fails, for nothing hangs on it: what
 * stays times out. Needs the `conntrack` package.
 */
export async function dropForbidden(tracked: Tracked, policy: ResolvedPolicy, logger: Logger): Promise<void> {
  const { namespace, slotAddress, dnsAddress } = tracked
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  const inSlot = (input: string) => run('nsenter', [`--net=/run/netns/${namespace}`, 'sh', '-s'], { input, signal })
  try {
    const connected = connectedTo(await inSlot(listScript))
    const networks = forbiddenNetworks(policy, connected, [GATEWAY_ADDRESS, dnsAddress])
    if (networks.length === 0) return
    await inSlot(forEach(networks, (network) => `-D ${TRACKED} --orig-dst ${network}`))
    const shorten = (network: string) =>
      `-U -f ipv4 --orig-src ${slotAddress} --orig-dst ${network} --timeout ${LAST_WORDS_S}`
    await run('sh', ['-s'], { input: forEach(networks, shorten), signal })
  } catch (error) {
    logger.warn({ namespace, error: errorText(error) }, 'network.connections_not_dropped')
  }
}

const listScript = `command -v conntrack >/dev/null || exit 0
exec conntrack -L ${TRACKED} 2>/dev/null
`

/** A command that finds nothing fails, which is none. */
function forEach(networks: readonly string[], argumentsFor: (network: string) => string): string {
  const commands = networks.map((network) => `conntrack ${argumentsFor(network)} >/dev/null 2>&1`)
  return `${commands.join('\n')}\nexit 0\n`
}

/** Where the guest is connected to, by a list of conntrack; its name server, which the host is, not among them. */
export function connectedTo(tracked: string): readonly string[] {
  const addresses = new Set([...tracked.matchAll(ORIGINAL)].map(([, address = '']) => address))
  addresses.delete(GATEWAY_ADDRESS)
  return [...addresses]
}

/**
 * Networks that have those of the addresses that the policy forbids, and nothing that it permits, tracked or not: few, as each is as
 * large as can be. `kept` is in none of them.
 */
export function forbiddenNetworks(
  { permitted }: ResolvedPolicy,
  addresses: readonly string[],
  kept: readonly string[] = [],
): readonly string[] {
  const forbidden = without(everything, union(permitted, kept.flatMap(alone)))
  const networks = addresses.flatMap(alone).flatMap(({ first: address }) => {
    const around = find(forbidden, address)
    return around === undefined ? [] : [formatCidr(networkAround(address, around))]
  })
  return [...new Set(networks)]
}

function alone(address: string): readonly Interval[] {
  const number = parseAddress(address)
  return number === undefined ? [] : [{ first: number, last: number }]
}
