import { run } from '../exec.js'
import { permits, type ResolvedPolicy } from './policy.js'
import { GATEWAY_ADDRESS, GUEST_ADDRESS } from './rules.js'

/** `conntrack -L` prints the addresses of a connection's first packet first. */
const ORIGINAL = new RegExp(`^.*? src=${GUEST_ADDRESS} dst=([\\d.]+) `, 'gm')

/**
 * Drops what a slot tracks of connections that its policy does not let through: the rules refuse their packets already, and this
 * gives their places back. Needs the `conntrack` package: without it they stay until they time out.
 */
export async function dropForbidden(namespace: string, policy: ResolvedPolicy): Promise<void> {
  const inside = [`--net=/run/netns/${namespace}`, 'sh', '-s']
  const list = `command -v conntrack >/dev/null || exit 0; conntrack -L -f ipv4 --orig-src ${GUEST_ADDRESS} 2>/dev/null\n`
  const tracked = await run('nsenter', inside, { input: list })
  const forbidden = connectedTo(tracked).filter((address) => !permits(policy, address))
  if (forbidden.length === 0) return
  const drop = (address: string): string => `conntrack -D -f ipv4 --orig-src ${GUEST_ADDRESS} --orig-dst ${address}`
  // One that has ended meanwhile is no failure.
  const script = forbidden.map((address) => `${drop(address)} >/dev/null 2>&1`)
  await run('nsenter', inside, { input: `${script.join('\n')}\nexit 0\n` })
}

/** Where the guest is connected to, by a list of conntrack; its name server, which the host is, not among them. */
export function connectedTo(tracked: string): readonly string[] {
  const addresses = new Set([...tracked.matchAll(ORIGINAL)].map(([, address = '']) => address))
  addresses.delete(GATEWAY_ADDRESS)
  return [...addresses]
}
