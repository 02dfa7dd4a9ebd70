import type { Host } from '../host/host.js'
import type { Hosts } from '../host/hosts.js'

/** What goes on with one host, from its start until its stop, which waits for what is under way. */
interface HostPart {
  start(): void
  stop(): Promise<void>
}

/** The same work for each host, each for itself: one that is silent keeps no other waiting. It begins when a host comes and ends when it goes. */
export class PerHost {
  readonly #hosts: Hosts
  readonly #create: (host: Host) => HostPart
  readonly #parts = new Map<Host, HostPart>()
  readonly #stopping = new Set<Promise<void>>()
  #isRunning = false

  constructor(hosts: Hosts, create: (host: Host) => HostPart) {
    this.#hosts = hosts
    this.#create = create
    hosts.onChange(() => this.#follow())
  }

  start(): void {
    this.#isRunning = true
    this.#follow()
  }

  async stop(): Promise<void> {
    this.#isRunning = false
    this.#follow()
    await Promise.all(this.#stopping)
  }

  #follow(): void {
    const hosts = new Set(this.#isRunning ? this.#hosts.all : [])
    for (const [host, part] of this.#parts) if (!hosts.has(host)) this.#end(host, part)
    for (const host of hosts) {
      if (this.#parts.has(host)) continue
      const part = this.#create(host)
      this.#parts.set(host, part)
      part.start()
    }
  }

  #end(host: Host, part: HostPart): void {
    this.#parts.delete(host)
    const stopped = part.stop().finally(() => this.#stopping.delete(stopped))
    this.#stopping.add(stopped)
  }
}
