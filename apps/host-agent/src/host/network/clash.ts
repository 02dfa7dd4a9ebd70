import { AppError, type Cidr, formatCidr, overlaps, parseCidr } from '@wrenn/base'
import { run } from '../exec.js'

interface Route {
  readonly dst: string
  readonly dev?: string
}

/** The first network of the host, apart from links that `isOurs`, that overlaps `range`. */
export async function findClash(
  range: Cidr,
  isOurs: (link: string) => boolean,
): Promise<{ readonly network: string; readonly link: string } | undefined> {
  for (const { dst, dev = 'no device' } of await listRoutes()) {
    const network = parseCidr(dst)
    if (network && network.bits > 0 && !isOurs(dev) && overlaps(range, network)) {
      return { network: formatCidr(network), link: dev }
    }
  }
  return undefined
}

/** @throws AppError `invalid_config` naming the network in the way and the option to change. */
export async function refuseClash(range: Cidr, isOurs: (link: string) => boolean): Promise<void> {
  const clash = await findClash(range, isOurs)
  if (!clash) return
  throw new AppError(
    'invalid_config',
    `WRENN_NETWORK_CIDR ${formatCidr(range)} overlaps ${clash.network} on ${clash.link}; choose a network that this machine does not use.`,
    { details: clash },
  )
}

/** Routes of all tables, which include every address of the host. */
async function listRoutes(): Promise<readonly Route[]> {
  return JSON.parse(await run('ip', ['-4', '-json', 'route', 'show', 'table', 'all'])) as Route[] // iproute2's documented form
}

/** MTU for the slots: the uplink's, and never more than the 1500 that guests assume. */
export async function uplinkMtu(): Promise<number> {
  const [route] = JSON.parse(await run('ip', ['-4', '-json', 'route', 'show', 'default'])) as Route[] // as above
  if (route?.dev === undefined) return 1500
  const [link] = JSON.parse(await run('ip', ['-json', 'link', 'show', 'dev', route.dev])) as { mtu: number }[] // as above
  return Math.min(link?.mtu ?? 1500, 1500)
}
