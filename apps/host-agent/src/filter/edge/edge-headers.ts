/** Of one connection, not of a request (RFC 9110 §7.6.1); each side has its own. */
const HOP_BY_HOP = new Set([
  ...['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization'],
  ...['te', 'trailer', 'transfer-encoding', 'upgrade'],
])

type Pair = readonly [name: string, value: string]

function pairsOf(raw: readonly string[]): readonly Pair[] {
  return Array.from({ length: raw.length / 2 }, (_, index) => [raw[index * 2] ?? '', raw[index * 2 + 1] ?? ''])
}

/** Headers as they go on, their order, spelling and repetitions kept. */
function onward(raw: readonly string[]): readonly Pair[] {
  const pairs = pairsOf(raw)
  const named = pairs.flatMap(([name, value]) => (isNamed(name, 'connection') ? value.toLowerCase().split(',') : []))
  const dropped = new Set([...HOP_BY_HOP, ...named.map((name) => name.trim())])
  // Who names these as of the connection alone wants to confuse.
  for (const name of ['host', 'content-length']) dropped.delete(name)
  return pairs.filter(([name]) => !dropped.has(name.toLowerCase()))
}

function isNamed(name: string, wanted: string): boolean {
  return name.toLowerCase() === wanted
}

/** Of a request: those of the rule in place of the guest's. @returns name and value in turn, as `http.request` takes them */
export function requestHeaders(
  raw: readonly string[],
  set: Readonly<Record<string, string>>,
  more: readonly Pair[],
): string[] {
  const replaced = new Set(Object.keys(set))
  const kept = onward(raw).filter(([name]) => !replaced.has(name.toLowerCase()))
  return [...kept, ...Object.entries(set), ...more].flat()
}

/** Of an answer. @returns name and value in turn, as `writeHead` takes them */
export function responseHeaders(raw: readonly string[], more: readonly Pair[] = []): string[] {
  return [...onward(raw), ...more].flat()
}
