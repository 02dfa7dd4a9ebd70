/** State of a socket in `/proc/net/tcp` that waits for connections (include/net/tcp_states.h). */
const LISTEN = '0A'

/** Ports that something listens on, of the text of `/proc/net/tcp` and `tcp6`; in order, each once. */
export function listeningPorts(text: string): number[] {
  const ports = new Set<number>()
  for (const line of text.split('\n')) {
    const [, local = '', , state] = line.trim().split(/\s+/)
    const port = Number.parseInt(/:([0-9A-F]{4})$/.exec(local)?.[1] ?? '', 16)
    if (state === LISTEN && port > 0) ports.add(port)
  }
  return [...ports].sort((one, other) => one - other)
}
