import { readFile, stat } from 'node:fs/promises'
import { isIP } from 'node:net'
import { isErrno } from '@wrenn/base'

/** glibc's resolver without a nameserver line asks this machine, and reads at most three. resolv.conf(5) */
const DEFAULT_SERVERS = ['127.0.0.1']
const MAXIMUM_SERVERS = 3
/** One silence may be the name's fault, whose own servers are away. */
const SILENCES_TO_BE_AILING = 3
const AILING_MS = 10_000

/** The nameservers of a resolv.conf. */
export function parseResolvConf(text: string): readonly string[] {
  const servers = text
    .split('\n')
    .map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? '')
    .filter((server) => isIP(server.split('%')[0] ?? '') !== 0)
  return servers.length > 0 ? servers.slice(0, MAXIMUM_SERVERS) : DEFAULT_SERVERS
}

interface Silences {
  count: number
  lastAtMs: number
}

/** The host's nameservers, read again whenever the file changed, those that answer before those that do not. */
export class Upstreams {
  #version = ''
  #servers: readonly string[] = DEFAULT_SERVERS
  #reading: Promise<void> | undefined
  readonly #silences = new Map<string, Silences>()

  /** @param own our own addresses: asking ourselves would never end */
  constructor(
    private readonly path: string,
    private readonly own: readonly string[],
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** Servers in the order in which to ask them: those that kept silent of late come last. */
  async list(): Promise<readonly string[]> {
    // One look for all who ask at the same time: a burst must not queue in the thread pool.
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined
    })
    await this.#reading
    const well = this.#servers.filter((server) => !this.#isAiling(server))
    return [...well, ...this.#servers.filter((server) => this.#isAiling(server))]
  }

  noteAnswer(server: string): void {
    this.#silences.delete(server)
  }

  noteSilence(server: string): void {
    const count = (this.#silences.get(server)?.count ?? 0) + 1
    this.#silences.set(server, { count, lastAtMs: this.now() })
  }

  #isAiling(server: string): boolean {
    const silences = this.#silences.get(server)
    if (silences === undefined || silences.count < SILENCES_TO_BE_AILING) return false
    return this.now() - silences.lastAtMs < AILING_MS
  }

  async #read(): Promise<void> {
    try {
      const { mtimeMs, ino, size } = await stat(this.path)
      const version = `${mtimeMs} ${ino} ${size}`
      if (version === this.#version) return
      const servers = parseResolvConf(await readFile(this.path, 'utf8'))
      this.#servers = servers.filter((server) => !this.own.includes(server))
      this.#version = version
      this.#silences.clear()
    } catch (error) {
      // While the file is being replaced the old answer is the best one.
      if (!isErrno(error, 'ENOENT')) throw error
    }
  }
}
