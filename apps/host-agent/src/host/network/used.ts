import { z } from 'zod'
import { runForResult } from '../exec.js'
import { type Destination, Destinations, type Learned, lostLearned } from '../names/index.js'
import { MAXIMUM_USED, USED_SETS } from './rules.js'

const counted = <T extends z.ZodType>(val: T) =>
  z.object({ elem: z.object({ val, counter: z.object({ packets: z.int() }) }) })
const port = counted(z.object({ concat: z.tuple([z.enum(['tcp', 'udp']), z.string(), z.int()]) }))
const ping = counted(z.string())
/** As `nft --json list sets` says it: one object each, and one of nft itself. */
const listing = z.object({
  nftables: z.array(
    z.object({ set: z.object({ name: z.string(), elem: z.array(z.unknown()).optional() }).optional() }),
  ),
})

/** What nft has counted of a slot that learns, without names. */
export async function readUsed(namespace: string): Promise<Learned> {
  const command = ['nft', '--json', 'list', 'sets', 'inet']
  const { exitCode, stdout } = await runForResult('nsenter', [`--net=/run/netns/${namespace}`, ...command])
  // A slot that is given up meanwhile.
  return exitCode === 0 ? parseUsed(stdout) : lostLearned
}

/** @see readUsed */
export function parseUsed(text: string): Learned {
  const used = new Destinations()
  let isComplete = true
  for (const { set } of listing.parse(JSON.parse(text)).nftables) {
    const elements = set?.elem ?? []
    const read = set?.name === USED_SETS.ports ? toTarget : set?.name === USED_SETS.pings ? toPing : undefined
    if (read === undefined) continue
    if (elements.length >= MAXIMUM_USED) isComplete = false
    for (const { count, ...target } of elements.flatMap(read)) used.note('', target, count)
  }
  const { destinations } = used.list('')
  return { destinations, isComplete }
}

function toTarget(element: unknown): readonly Destination[] {
  const { data } = port.safeParse(element)
  if (data === undefined) return []
  const [protocol, address, number] = data.elem.val.concat
  return [{ protocol, address, port: number, count: data.elem.counter.packets }]
}

function toPing(element: unknown): readonly Destination[] {
  const { data } = ping.safeParse(element)
  return data === undefined
    ? []
    : [{ protocol: 'icmp', address: data.elem.val, port: 0, count: data.elem.counter.packets }]
}
