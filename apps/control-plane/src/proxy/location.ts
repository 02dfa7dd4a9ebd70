import { GUEST_AGENT_PORT } from '@wrenn/protocol'
import type { Destination } from './destination.js'

/** What a service in a capsule may call itself. */
const OWN_NAMES =
  /^(?:localhost|127(?:\.\d{1,3}){3}|0\.0\.0\.0|169\.254\.0\.21|\[::1?\]|\[::ffff:127(?:\.\d{1,3}){3}\])$/i

/** A redirect to the capsule's own address, as somebody outside can follow it. Anything else stays as it is. */
export function publicLocation(value: string, { capsuleId, port, domain, isSecure }: Destination): string {
  const [, scheme = '', host = '', digits, rest = ''] =
    /^(http:)?\/\/(\[[^\]]*\]|[^/?#:@]*)(?::(\d+))?([/?#].*)?$/i.exec(value) ?? []
  if (!OWN_NAMES.test(host)) return value
  const own = digits === undefined ? 80 : Number(digits)
  if (domain === undefined) return own === port ? rest.replace(/^(?!\/)/, '/') : value
  const outside = scheme !== '' && isSecure ? 'https:' : scheme
  return own === GUEST_AGENT_PORT ? value : `${outside}//${own}-${capsuleId}.${domain}${rest}`
}
