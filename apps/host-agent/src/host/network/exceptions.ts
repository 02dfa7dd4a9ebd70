import { z } from 'zod'
import { runForResult } from '../exec.js'
import type { Exceptions } from './rules.js'

const network = z.union([
  z.string(),
  z
    .object({ prefix: z.object({ addr: z.string(), len: z.int() }) })
    .transform(({ prefix }) => `${prefix.addr}/${prefix.len}`),
])
/** As `nft --json list set` says it: one object among others has the set. */
const listing = z.object({
  nftables: z.array(
    z.object({
      set: z.object({ elem: z.array(z.object({ concat: z.tuple([z.string(), network]) })).optional() }).optional(),
    }),
  ),
})

/**
 * What slots with these addresses reach of the private ranges by the root table as it is. It is replaced at each start, and their
 * connections must not notice. Nothing where there is no table, or one of a layout that this version does not know: then it is closed
 * until the policies are loaded again.
 */
export async function readExceptions(prefix: string, slotAddresses: readonly string[]): Promise<Exceptions> {
  if (slotAddresses.length === 0) return new Map()
  const { exitCode, stdout } = await runForResult('nft', ['--json', 'list', 'set', 'inet', prefix, 'exceptions'])
  return exitCode === 0 ? parseExceptions(stdout, slotAddresses) : new Map()
}

/** @see readExceptions */
export function parseExceptions(text: string, slotAddresses: readonly string[]): Exceptions {
  const found = new Map<string, string[]>()
  const { data } = listing.safeParse(JSON.parse(text))
  for (const { concat } of data?.nftables.flatMap(({ set }) => set?.elem ?? []) ?? []) {
    const [slot, reached] = concat
    if (slotAddresses.includes(slot)) found.set(slot, [...(found.get(slot) ?? []), reached])
  }
  return found
}
