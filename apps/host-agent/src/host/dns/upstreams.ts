import { readFile, stat } from 'node:fs/promises'
import { isIP } from 'node:net'
import { isErrno } from '@wrenn/base'

/** glibc's resolver without a nameserver line asks this machine, and reads at most three. resolv.conf(5) */
const DEFAULT_SERVERS = ['127.0.0.1']
const MAXIMUM_SERVERS = 3

/** The nameservers of a resolv.conf. */
export function parseResolvConf(text: string): readonly string[] {
  const servers = text
    .split('\n')
    .map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? '')
    .filter((server) => isIP(server.split('%')[0] ?? '') !== 0)
  return servers.length > 0 ? servers.slice(0, MAXIMUM_SERVERS) : DEFAULT_SERVERS
}

/** The host's nameservers, read again whenever the file changed. */
export class Upstreams {
  #version = ''
  #servers: readonly string[] = DEFAULT_SERVERS

  /** @param own our own addresses: asking ourselves would never end */
  constructor(
    private readonly path: string,
    private readonly own: readonly string[],
  ) {}

  async list(): Promise<readonly string[]> {
    try {
      const { mtimeMs, ino, size } = await stat(this.path)
      const version = `${mtimeMs} ${ino} ${size}`
      if (version === this.#version) return this.#servers
      const servers = parseResolvConf(await readFile(this.path, 'utf8'))
      this.#servers = servers.filter((server) => !this.own.includes(server))
      this.#version = version
    } catch (error) {
      // While the file is being replaced the old answer is the best one.
      if (!isErrno(error, 'ENOENT')) throw error
    }
    return this.#servers
  }
}
