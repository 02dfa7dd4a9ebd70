import { EventEmitter } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Http2Server, type ServerHttp2Session } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { hostIds } from '@wrenn/base'
import { HostService } from '@wrenn/protocol/host'
import { FakeCapsule } from './fake-capsule.js'
import { createFakeService } from './fake-service.js'

export interface FakeExit {
  readonly cause: string
  readonly message: string
  readonly consoleTail?: string
}

export type FakeChange = { readonly capsule: FakeCapsule } | { readonly removed: string } | 'keepalive'

/**
 * A host agent for tests: real HostService over real h2c on a unix socket, whose capsules are local processes and a
 * directory. `stop` and `start` are a restart: capsules and their processes survive, connections do not.
 */
export class FakeHost implements AsyncDisposable {
  readonly address: string
  readonly hostId = hostIds.create()
  readonly capsules = new Map<string, FakeCapsule>()
  readonly changes = new EventEmitter<{ change: [FakeChange] }>().setMaxListeners(0)
  /** What GetHost says. */
  notReadyReason = ''
  /** Calls of CreateCapsule so far. */
  creates = 0
  #gate: Promise<void> | undefined
  #openGate: () => void = () => {}
  readonly #dir: string
  #server: Http2Server | undefined
  readonly #sessions = new Set<ServerHttp2Session>()

  private constructor(dir: string) {
    this.#dir = dir
    this.address = `unix:${join(dir, 'host-agent.sock')}`
  }

  static async start(): Promise<FakeHost> {
    const host = new FakeHost(await mkdtemp(join(tmpdir(), 'wrenn-fake-host-')))
    await host.start()
    return host
  }

  get templates(): readonly { readonly name: string; readonly aliases: readonly string[] }[] {
    return [
      { name: 'minimal', aliases: ['base'] },
      { name: 'python', aliases: [] },
    ]
  }

  async start(): Promise<void> {
    const path = join(this.#dir, 'host-agent.sock')
    await rm(path, { force: true })
    const routes = connectNodeAdapter({ routes: (router) => router.service(HostService, createFakeService(this)) })
    const server = createServer({ settings: { initialWindowSize: 1024 * 1024 } }, routes)
    server.on('session', (session) => {
      this.#sessions.add(session)
      session.setLocalWindowSize(16 * 1024 * 1024)
      session.on('error', () => {})
      session.once('close', () => this.#sessions.delete(session))
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    this.#server = server
  }

  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (server === undefined) return
    const closed = new Promise((resolve) => server.close(resolve))
    for (const session of this.#sessions) session.destroy()
    await closed
  }

  /** Creates that arrive from now on wait until the returned function is called. */
  holdCreates(): () => void {
    this.#gate = new Promise((resolve) => {
      this.#openGate = resolve
    })
    return () => {
      this.#gate = undefined
      this.#openGate()
    }
  }

  async passGate(): Promise<void> {
    await this.#gate
  }

  async addCapsule(id: string): Promise<FakeCapsule> {
    const capsule = await FakeCapsule.create(id, join(this.#dir, id))
    this.capsules.set(id, capsule)
    return capsule
  }

  announce(capsule: FakeCapsule): void {
    this.changes.emit('change', { capsule })
  }

  /** Removes a capsule with its files and processes. */
  async remove(id: string): Promise<boolean> {
    const capsule = this.capsules.get(id)
    if (capsule === undefined) return false
    this.capsules.delete(id)
    await capsule.dispose()
    this.changes.emit('change', { removed: id })
    return true
  }

  /** The guest dies by itself. */
  die(id: string, exit: FakeExit): void {
    const capsule = this.capsules.get(id)
    if (capsule === undefined) return
    capsule.die(exit)
    this.announce(capsule)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    for (const id of [...this.capsules.keys()]) await this.remove(id)
    await rm(this.#dir, { recursive: true, force: true })
  }
}
